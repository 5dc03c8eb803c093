//! What happens to a program whose tasks crash: nothing. It gets an error, and goes on.
//!
//! Look at what each error knows: the kind, the signal or exit code, the worker, the place of the
//! panic. Then the same documents are converted once more among a hundred good ones, and all of
//! those succeed. A panic costs no worker; everything else costs one, which is replaced.
//!
//! ```text
//! $ cargo run --release --example crash
//! one by one:
//! WritesThroughNull
//!     the worker was killed by signal 11 (SIGSEGV) while it ran the task, in PoolWorker-2 (pid 31964)
//!     kind WorkerLost, signal 11, worker PoolWorker-2
//! Aborts
//!     the worker was killed by signal 6 (SIGABRT) while it ran the task, in PoolWorker-1 (pid 31963)
//!     kind WorkerLost, signal 6, worker PoolWorker-1
//! Panics
//!     the task panicked: the table of fonts is missing (at examples/crash.rs:89:29), in PoolWorker-3 (pid 31965)
//!     kind Panicked, worker PoolWorker-3, panic at examples/crash.rs:89:29
//! Exits
//!     the worker exited with code 42 while it ran the task, in PoolWorker-3 (pid 31965)
//!     kind WorkerLost, exit code 42, worker PoolWorker-3
//! TakesAllMemory
//!     the worker was killed by signal 9 (SIGKILL) while it ran the task, in PoolWorker-4 (pid 31969)
//!     kind WorkerLost, signal 9, worker PoolWorker-4
//! NeverEnds
//!     the task ran longer than its timeout of 2s and was killed, in PoolWorker-6 (pid 32020)
//!     kind TimedOut, signal 9, worker PoolWorker-6
//!
//! among a hundred others:
//! WritesThroughNull: Err(WorkerLost)
//! Aborts: Err(WorkerLost)
//! Panics: Err(Panicked)
//! Exits: Err(WorkerLost)
//! TakesAllMemory: Err(WorkerLost)
//! NeverEnds: Err(TimedOut)
//! 100 of 106 were converted
//!
//! 112 documents: 100 converted, 12 not; 12 workers were started, 10 lost
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "tasks that take their time sleep"
)]
#![allow(unsafe_code)]

use std::error::Error;
use std::time::Duration;
use std::{process, ptr, thread};

use procpool::{Pool, ProcessPool, TaskErrorKind};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

/// A document from a stranger, by what it does to the library that converts it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Document {
    Fine { pages: u32 },
    WritesThroughNull,
    Aborts,
    Panics,
    Exits,
    TakesAllMemory,
    NeverEnds,
}

/// How each of the bad ones must end: kind, signal, exit code.
const BAD: [(Document, TaskErrorKind, Option<i32>, Option<i32>); 6] = {
    use TaskErrorKind::{Panicked, TimedOut, WorkerLost};
    [
        (Document::WritesThroughNull, WorkerLost, Some(11), None),
        (Document::Aborts, WorkerLost, Some(6), None),
        (Document::Panics, Panicked, None, None),
        (Document::Exits, WorkerLost, None, Some(42)),
        (Document::TakesAllMemory, WorkerLost, Some(9), None),
        (Document::NeverEnds, TimedOut, Some(9), None),
    ]
};

const DEADLINE: Duration = Duration::from_secs(2);

/// Stands for a call into a C library.
fn convert(document: Document) -> u32 {
    match document {
        Document::Fine { pages } => pages,
        Document::WritesThroughNull => {
            let font: *mut u32 = ptr::null_mut();
            // SAFETY: none. The fourth field of a structure that is not there.
            unsafe { font.wrapping_add(3).write_volatile(7) };
            0
        }
        Document::Aborts => process::abort(),
        Document::Panics => panic!("the table of fonts is missing"),
        #[allow(clippy::disallowed_methods, reason = "it is what bad libraries do")]
        Document::Exits => process::exit(42),
        Document::TakesAllMemory => {
            // What the kernel does when there is no more.
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            0
        }
        Document::NeverEnds => loop {
            thread::sleep(Duration::from_secs(3600));
        },
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let pool = ProcessPool::builder().processes(2).build()?;
    one_by_one(&pool);
    among_good_ones(&pool);

    let stats = pool.stats();
    println!(
        "\n{} documents: {} converted, {} not; {} workers were started, {} lost",
        stats.submitted, stats.succeeded, stats.failed, stats.workers_started, stats.workers_lost,
    );
    // A panic costs no worker; the other five cost one each, both times.
    assert_eq!((stats.failed, stats.workers_lost), (12, 10));
    Ok(())
}

/// What can be known of each.
fn one_by_one(pool: &ProcessPool) {
    println!("one by one:");
    for (document, kind, signal, exit_code) in BAD {
        let call = pool.call(convert).timeout(DEADLINE);
        let error = call.apply(document).expect_err("it cannot be converted");
        println!("{document:?}");
        println!("    {error}");
        print!("    kind {:?}", error.kind());
        if let Some(signal) = error.signal() {
            print!(", signal {signal}");
        }
        if let Some(code) = error.exit_code() {
            print!(", exit code {code}");
        }
        if let Some(worker) = error.worker() {
            print!(", worker {}", worker.name());
        }
        if let Some(location) = error.panic_location() {
            print!(", panic at {location}");
        }
        println!();
        assert_eq!(error.kind(), kind);
        assert_eq!((error.signal(), error.exit_code()), (signal, exit_code));
        assert_eq!(error.panic_location().is_some(), error.is_panic());
    }
}

/// The same documents among a hundred others, which do not notice.
fn among_good_ones(pool: &ProcessPool) {
    println!("\namong a hundred others:");
    let mut documents = Vec::from_iter((1..=100).map(|pages| Document::Fine { pages }));
    for (at, (document, ..)) in BAD.into_iter().enumerate() {
        documents.insert(15 * at + 7, document);
    }
    let call = pool.call(convert).timeout(DEADLINE);
    let outcomes = call.try_map(documents.iter().copied());
    for (document, outcome) in documents.iter().zip(&outcomes) {
        match (document, outcome) {
            (Document::Fine { pages }, Ok(converted)) => assert_eq!(converted, pages),
            (Document::Fine { .. }, Err(error)) => panic!("{document:?}: {error}"),
            (bad, outcome) => println!("{bad:?}: {:?}", outcome.as_ref().map_err(|e| e.kind())),
        }
    }
    let converted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    println!("{converted} of {} were converted", outcomes.len());
    assert_eq!(converted, 100);
}
