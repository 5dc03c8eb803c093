//! Tests that may do anything, each in a process of its own: one that crashes, calls `exit` or
//! hangs is a failed test, and all others have their results.
//!
//! A harness that runs tests in threads ends with the first test that takes the process down, and
//! waits forever for one that hangs; what a test leaves in a global variable, the next one finds.
//! Here `max_tasks_per_child(1)` gives each test a fresh process, and the timeout kills.
//!
//! ```text
//! $ cargo run --release --example test_isolation
//! running 11 tests
//! test parse::an_empty_input ... ok
//! test parse::two_numbers ... ok
//! test parse::a_negative_number ... FAILED (panicked)
//! test parse::no_number ... FAILED (panicked)
//! test ffi::reads_a_null_pointer ... FAILED (signal 11)
//! test ffi::a_failed_assertion_in_c ... FAILED (signal 6)
//! test cli::help_is_printed ... FAILED (exit code 2)
//! test net::waits_for_an_answer ... FAILED (timed out)
//! test deep::recursion ... FAILED (signal 6)
//! test state::starts_at_zero ... ok
//! test state::starts_at_zero_again ... ok
//!
//! failures:
//!     parse::a_negative_number: the task panicked: assertion `left == right` failed
//!   left: [-1]
//!  right: [1] (at examples/test_isolation.rs:51:37), in PoolWorker-3 (pid 29537)
//!     parse::no_number: the task panicked: a number: ParseIntError { kind: InvalidDigit } (at examples/test_isolation.rs:85:35), in PoolWorker-4 (pid 29539)
//!     ffi::reads_a_null_pointer: the worker was killed by signal 11 (SIGSEGV) while it ran the task, in PoolWorker-5 (pid 29541)
//!     ffi::a_failed_assertion_in_c: the worker was killed by signal 6 (SIGABRT) while it ran the task, in PoolWorker-6 (pid 29543)
//!     cli::help_is_printed: the worker exited with code 2 while it ran the task, in PoolWorker-7 (pid 29545)
//!     net::waits_for_an_answer: the task ran longer than its timeout of 1s and was killed, in PoolWorker-8 (pid 29547)
//!     deep::recursion: the worker was killed by signal 6 (SIGABRT) while it ran the task, in PoolWorker-9 (pid 29549); the last that it wrote to standard error:
//!
//!     thread 'main' (29549) has overflowed its stack
//!     fatal runtime error: stack overflow, aborting
//!
//! test result: FAILED. 4 passed; 7 failed; finished in 1.09s
//! ```
#![allow(unsafe_code)]

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use procpool::{Output, Pool, SpawnPool, TaskError};

/// The tests by name: a function cannot travel to another process, but a name can.
const TESTS: &[(&str, fn())] = &[
    ("parse::an_empty_input", || assert!(parse("").is_empty())),
    ("parse::two_numbers", || assert_eq!(parse("1 2"), [1, 2])),
    ("parse::a_negative_number", || assert_eq!(parse("-1"), [1])),
    ("parse::no_number", || drop(parse("one"))),
    ("ffi::reads_a_null_pointer", || {
        let nothing: *const u32 = std::ptr::null();
        // SAFETY: none. It is what the test is about.
        let value = unsafe { nothing.read_volatile() };
        assert_eq!(value, 0);
    }),
    ("ffi::a_failed_assertion_in_c", || std::process::abort()),
    ("cli::help_is_printed", || {
        #[allow(
            clippy::disallowed_methods,
            reason = "as command lines do after their help"
        )]
        std::process::exit(2)
    }),
    ("net::waits_for_an_answer", || {
        loop {
            std::thread::park();
        }
    }),
    ("deep::recursion", || assert!(depth(u64::MAX) > 0)),
    ("state::starts_at_zero", || {
        assert_eq!(COUNTER.fetch_add(1, Ordering::Relaxed), 0)
    }),
    ("state::starts_at_zero_again", || {
        assert_eq!(COUNTER.fetch_add(1, Ordering::Relaxed), 0)
    }),
];

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn parse(text: &str) -> Vec<i64> {
    let words = text.split_whitespace();
    words.map(|word| word.parse().expect("a number")).collect()
}

/// More than any stack has room for.
fn depth(left: u64) -> u64 {
    let more = std::hint::black_box(left) - 1;
    1 + if more == 0 { 0 } else { depth(more) }
}

/// Runs a test, in a worker.
fn run(name: String) {
    let test = TESTS.iter().find(|test| test.0 == name);
    let (_, body) = test.expect("a test of this name");
    body();
}

fn main() -> Result<(), Box<dyn Error>> {
    procpool::init();
    let begin = Instant::now();
    let pool = SpawnPool::builder()
        .processes(2)
        .max_tasks_per_child(1)
        // Captured: the end of it stands in the errors.
        .stderr(Output::lines(|_| ()))
        .build()?;

    println!("running {} tests", TESTS.len());
    let handles = TESTS.iter().map(|(name, _)| {
        let call = pool.call(run).timeout(Duration::from_secs(1));
        (name, call.apply_async((*name).to_owned()))
    });
    // All are under way before the first is waited for.
    let handles: Vec<_> = handles.collect();
    let mut failures = Vec::new();
    for (name, handle) in handles {
        match handle.get() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                println!("test {name} ... FAILED ({})", verdict(&error));
                failures.push((name, error));
            }
        }
    }

    println!("\nfailures:");
    for (name, error) in &failures {
        println!("    {name}: {error}");
    }
    let passed = TESTS.len() - failures.len();
    let result = if failures.is_empty() { "ok" } else { "FAILED" };
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "\ntest result: {result}. {passed} passed; {} failed; finished in {seconds:.2}s",
        failures.len()
    );
    assert_eq!(passed, 4, "the tests that are right, and no other");
    Ok(())
}

/// In two words.
fn verdict(error: &TaskError) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    match (error.signal(), error.exit_code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (_, Some(code)) => format!("exit code {code}"),
        _ => "panicked".to_owned(),
    }
}
