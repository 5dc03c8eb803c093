//! Launches that fail, and what the parent then says.

use std::fs;
use std::time::Duration;

use procpool_core::{ExitStatus, Readiness};
use procpool_spawn::check_ready;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::harness::{LONG, Scenario, failure, is_readable, is_worker, launch, reach, reap, sleep};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_worker_without_descriptors", no_descriptors).worker(give_up_descriptors),
        Scenario::new("a_worker_without_memory", no_memory).worker(give_up_memory),
        Scenario::new("a_main_that_ends_before_init", ends_early).worker(end),
        Scenario::new("a_main_that_dies_before_init", dies_early).worker(|| std::process::abort()),
        Scenario::new("a_main_that_closes_its_standard_input", closes_early)
            .worker(close_standard_input),
        Scenario::new("a_main_that_never_comes_to_init", never_comes).worker(|| sleep()),
        Scenario::new("a_worker_that_passes_by_init", passes_by)
            .worker(pass_by)
            .without_init(),
        Scenario::new("a_program_without_init_is_not_ready", not_ready).without_init(),
        Scenario::new(
            "a_worker_of_another_version_is_not_ready",
            not_ready_for_another,
        )
        .variable("PROCPOOL_WORKER", another_version()),
    ]
}

fn limit(resource: Resource, value: u64) {
    let (current, maximum) = (Some(value), Some(value));
    setrlimit(resource, Rlimit { current, maximum }).expect("a lower limit");
}

fn give_up_descriptors() {
    limit(Resource::Nofile, 4);
}

fn no_descriptors() {
    let error = failure().to_string();
    assert!(error.contains("a worker cannot be set up"), "{error}");
    assert!(error.contains("os error 24"), "{error}");
}

fn give_up_memory() {
    let pages = fs::read_to_string("/proc/self/statm").expect("this process");
    let pages: u64 = pages
        .split(' ')
        .next()
        .and_then(|size| size.parse().ok())
        .expect("a size");
    limit(Resource::As, pages * 4096 + (8 << 20));
}

fn no_memory() {
    let error = reach(&mut *crate::harness::launch_with(16 << 20)).expect_err("no worker");
    assert!(error.to_string().contains("os error 12"), "{error}");
}

fn end() {
    std::process::exit(7)
}

fn ends_early() {
    let mut link = launch();
    let error = reach(&mut *link).expect_err("no worker");
    assert!(error.is_missing_init());
    for part in [
        "exited with code 7",
        "before it reached procpool::init()",
        "call it as the first line of main",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(reap(&mut *link), ExitStatus::Code(7));
}

fn dies_early() {
    let error = failure();
    assert!(!error.is_missing_init());
    assert!(error.to_string().contains("killed by signal 6"), "{error}");
}

fn close_standard_input() {
    rustix::stdio::dup2_stdin(rustix::stdio::stdout()).expect("a descriptor");
    sleep();
}

fn closes_early() {
    let mut link = launch();
    assert!(
        is_readable(link.doorbell(), LONG),
        "the worker says nothing"
    );
    // It may be dying, and the caller has other things to do than to wait for that.
    assert_eq!(link.poll_ready().expect("no error yet"), Readiness::HungUp);
    let error = reach(&mut *link).expect_err("no worker");
    assert!(error.is_missing_init());
    assert!(
        error.to_string().contains("closed its standard input"),
        "{error}"
    );
}

fn never_comes() {
    let mut link = launch();
    assert!(!is_readable(link.doorbell(), Duration::from_millis(100)));
    assert_eq!(link.poll_ready().expect("no error"), Readiness::Pending);
    // The engine's deadline passes.
    link.kill();
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
}

fn pass_by() {
    let error = check_ready().expect_err("not ready");
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
    sleep();
}

fn passes_by() {
    let error = failure();
    assert!(error.is_missing_init());
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
}

fn not_ready() {
    let error = check_ready().expect_err("not ready");
    assert!(error.to_string().contains("has not been called"), "{error}");
}

/// A call of a version yet to come: the test's process is the worker, this one its parent.
fn another_version() -> String {
    format!("4294967295:{}:0:something new", std::process::id())
}

fn not_ready_for_another() {
    assert!(is_worker());
    let error = check_ready().expect_err("not ready");
    assert!(
        error.to_string().contains("passed by procpool::init()"),
        "{error}"
    );
}
