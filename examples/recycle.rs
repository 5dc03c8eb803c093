//! Workers that are looked after: a library that leaks is kept within bounds, idle workers go and
//! come back, the pool is resized while it runs, and a hook tells of it all. Try it with `cargo run
//! --example recycle`.
//!
//! ```text
//! 100 tasks leak 10 MiB each; a worker may hold 100 MiB
//!   the most that one has held: 146 MiB
//!   replaced for that: 8 workers
//!   tasks that have failed: 0
//! 4 workers, of which one stays when there is nothing to do
//!   gone: 3 that "had nothing to do"
//!   there are now: 1
//!   4 tasks later, that were run by 4 workers:
//!   gone: 3 that "had nothing to do"
//!   there are now: 1
//!   4 tasks later, that were run by 4 workers:
//! a pool of 2, then of 6, then of 1, while it works
//!   processes: 6
//!   processes: 1
//!   let go: 5
//!   results of 60 tasks: 60
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "tasks that take their time sleep"
)]

use std::error::Error;
use std::fs;
use std::sync::mpsc::{self, Receiver};
use std::thread::sleep;
use std::time::Duration;

use procpool::{ExitReason, Pool, ProcessPool, WorkerExit, WorkerInfo};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: usize = 1 << 20;

fn main() -> Result<()> {
    procpool::init();
    leaks_within_bounds()?;
    as_many_as_there_is_work_for()?;
    another_size()
}

/// What a C library does that forgets to free something. How many MiB the worker holds then.
fn leaky(bytes: usize) -> usize {
    std::hint::black_box(vec![1_u8; bytes].leak());
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * rustix::param::page_size() / MIB
}

fn leaks_within_bounds() -> Result<()> {
    println!("100 tasks leak 10 MiB each; a worker may hold 100 MiB");
    let (hook, ends) = deaths();
    let pool = ProcessPool::builder()
        .processes(2)
        .max_memory_per_child(100 * MIB as u64)
        .on_worker_death(hook)
        .build()?;
    let held = pool.call(leaky).chunksize(1).map(vec![10 * MIB; 100])?;
    pool.close();
    pool.join()?;
    let most = held.into_iter().max().unwrap_or_default();
    let replaced = ends.try_iter().filter(|end| *end == ExitReason::MaxMemory);
    println!("  the most that one has held: {most} MiB");
    println!("  replaced for that: {} workers", replaced.count());
    println!("  tasks that have failed: {}", pool.stats().failed);
    Ok(())
}

fn as_many_as_there_is_work_for() -> Result<()> {
    println!("4 workers, of which one stays when there is nothing to do");
    let (hook, ends) = deaths();
    let pool = ProcessPool::builder()
        .processes(4)
        .idle_timeout(Duration::from_millis(50))
        .min_processes(1)
        .on_worker_death(hook)
        .build()?;
    for _ in 0..2 {
        let reasons: Vec<_> = ends.iter().take(3).map(|end| end.to_string()).collect();
        println!("  gone: {} that \"{}\"", reasons.len(), reasons[0]);
        println!("  there are now: {}", pool.stats().workers.len());
        let begun: Vec<u32> = pool.map(nap, [500; 4])?;
        let mut workers = begun.clone();
        workers.sort_unstable();
        workers.dedup();
        println!(
            "  {} tasks later, that were run by {} workers:",
            begun.len(),
            workers.len()
        );
    }
    Ok(())
}

/// Takes so many milliseconds. In which process.
fn nap(milliseconds: u64) -> u32 {
    sleep(Duration::from_millis(milliseconds));
    std::process::id()
}

fn another_size() -> Result<()> {
    println!("a pool of 2, then of 6, then of 1, while it works");
    let (hook, ends) = deaths();
    let pool = ProcessPool::builder()
        .processes(2)
        .on_worker_death(hook)
        .build()?;
    let tasks = pool.call(nap).chunksize(1).map_async([20; 60]);
    pool.resize(6)?;
    println!("  processes: {}", pool.processes());
    while pool.stats().workers.len() < 6 {
        sleep(Duration::from_millis(1));
    }
    pool.resize(1)?;
    println!("  processes: {}", pool.processes());
    let resized = ends
        .iter()
        .take(5)
        .filter(|end| *end == ExitReason::Resized);
    println!("  let go: {}", resized.count());
    println!("  results of 60 tasks: {}", tasks.get()?.len());
    Ok(())
}

/// A hook, and where it says why each worker has ended.
fn deaths() -> (
    impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync,
    Receiver<ExitReason>,
) {
    let (sender, receiver) = mpsc::channel();
    let hook = move |_: &WorkerInfo, end: &WorkerExit| {
        // Nobody listens any more when the pool is dropped.
        let _ = sender.send(end.reason());
    };
    (hook, receiver)
}
