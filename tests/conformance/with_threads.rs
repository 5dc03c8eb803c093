//! Forking a program with threads.

use std::sync::mpsc;

use procpool::{BuildError, BuildErrorKind, ForkPool, ForkServer, Pool, TaskErrorKind};
use rustix::process::{Pid, Signal, kill_process_group};

use procpool_conformance::Test;
use procpool_conformance::procfs;
use procpool_conformance::program::{Program, again, name};

use crate::Fork;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        ("a_program_with_threads_is_not_forked", refused),
        ("a_fork_server_makes_up_for_threads", with_server),
        ("a_fork_server_that_is_gone_is_an_error", server_gone),
    ]
}

pub(crate) fn programs() -> Vec<Program> {
    vec![
        (name::<Fork>("with_a_thread"), with_a_thread),
        (
            name::<Fork>("with_a_thread_and_a_server"),
            with_a_thread_and_a_server,
        ),
        (name::<Fork>("without_its_server"), without_its_server),
    ]
}

/// Runs this while there is a second thread.
fn beside_a_thread(body: impl FnOnce()) {
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    body();
    drop(stop);
    let _ = thread.join();
}

fn square(x: u64) -> u64 {
    x * x
}

/// Says that an error is of this kind, and that its text has these words.
fn assert_says(error: &BuildError, kind: BuildErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

fn with_a_thread() {
    beside_a_thread(|| {
        let error = ForkPool::builder().processes(1).build().map(|_| ());
        let words = ["2 threads", "ForkServer::start()", "SpawnPool"];
        assert_says(&error.unwrap_err(), BuildErrorKind::Threads, &words);
        assert!(procfs::below(std::process::id()).is_empty());
    });
    let pool = ForkPool::builder().processes(1).build();
    assert_eq!(pool.unwrap().apply(square, 3).unwrap(), 9);
}

/// The error counts the threads and names the ways round; without the thread it works.
fn refused() {
    assert_eq!(again::<Fork>("with_a_thread").lines(), [""; 0]);
}

fn with_a_thread_and_a_server() {
    let server = ForkServer::start().expect("there is one thread");
    beside_a_thread(|| {
        for _ in 0..2 {
            let builder = ForkPool::builder().processes(2).fork_server(&server);
            let pool = builder.build().expect("the server has one thread");
            assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
        }
    });
    drop(server);
    procfs::wait_until(|| procfs::below(std::process::id()).is_empty());
}

/// A server that was started before the thread serves one pool after the other.
fn with_server() {
    let program = again::<Fork>("with_a_thread_and_a_server");
    assert_eq!(program.lines(), [""; 0]);
}

fn without_its_server() {
    let server = ForkServer::start().expect("there is one thread");
    let pool = ForkPool::builder()
        .processes(2)
        .fork_server(&server)
        .build();
    let pool = pool.expect("a pool can be built");
    let handle = pool.map_async(|_: u64| std::thread::park(), 0..10);
    // The whole family, the standby with it.
    let family = Pid::from_raw(server.pid().cast_signed()).expect("it is not zero");
    kill_process_group(family, Signal::KILL).expect("they live");
    // The workers die with the server, and nobody can start others.
    let error = handle.get().unwrap_err();
    assert!(
        error.is_worker_lost() || error.kind() == TaskErrorKind::Launch,
        "{error}"
    );
    let error = pool.apply(square, 3).unwrap_err();
    assert!(error.to_string().contains("fork server"), "{error}");
    let error = ForkPool::builder().fork_server(&server).build().map(|_| ());
    assert_says(
        &error.unwrap_err(),
        BuildErrorKind::Launch,
        &["fork server"],
    );
}

/// Tasks and builds fail when somebody has killed the fork server with its standby, and say so.
fn server_gone() {
    assert_eq!(again::<Fork>("without_its_server").lines(), [""; 0]);
}
