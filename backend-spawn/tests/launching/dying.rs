//! Workers and parents that die.

use std::env;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::task::Poll;
use std::time::Instant;

use procpool_core::ExitStatus;
use procpool_testing::again::{Again, Started};
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, kill_process, pidfd_open, pidfd_send_signal,
};

use crate::harness::{
    LONG, Scenario, is_readable, is_worker, launch, note, reach, reached, reap, sleep,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_killed_worker_is_reported", a_killed_worker_is_reported),
        Scenario::new("a_program_may_ignore_its_children", children_are_ignored),
        Scenario::new("what_a_worker_started_goes_with_it", children_go_too).worker(start_child),
        Scenario::new(
            "killed_at_any_moment_it_leaves_nothing",
            killed_at_any_moment,
        ),
        Scenario::new("a_worker_dies_with_its_parent", dies_with_its_parent),
        Scenario::new(
            "a_parent_killed_at_any_moment_leaves_nothing",
            parent_killed_at_any_moment,
        ),
        Scenario::new("an_orphan_does_not_become_the_program", orphan).worker(outlive_parent),
    ]
}

fn open(pid: u32) -> OwnedFd {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    pidfd_open(pid, PidfdFlags::empty()).expect("a living process")
}

/// Waits for a process to die. One that does not would keep the harness waiting for its output.
fn assert_dies(process: &OwnedFd) {
    if !is_readable(process.as_fd(), LONG) {
        let _ = pidfd_send_signal(process, Signal::KILL);
        panic!("it lives");
    }
}

fn a_killed_worker_is_reported() {
    let mut link = reached();
    let pid = Pid::from_raw(link.pid().expect("a process").cast_signed()).expect("a number");
    kill_process(pid, Signal::TERM).expect("a living process");
    assert_eq!(reap(&mut *link), ExitStatus::Signal(15));
}

/// Then the system reaps them, and their numbers are free before anyone has asked.
fn children_are_ignored() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: it installs no handler.
    #[allow(unsafe_code)]
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.expect("a known signal");
    let mut link = reached();
    link.kill();
    // Between a death and the time when the system has reaped it, nobody knows how it ended.
    let ended = loop {
        if let Poll::Ready(status) = link.reap() {
            break status;
        }
        std::thread::yield_now();
    };
    // Older systems do not know it afterwards either.
    let expected = [ExitStatus::Signal(9), ExitStatus::Unknown];
    assert!(expected.contains(&ended), "{ended}");
    link.kill();
    drop(reached());
}

/// A worker's child, which has nothing of its parent's.
fn start_child() {
    #[allow(clippy::zombie_processes, reason = "it outlives this process")]
    let child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    fs::write(note("child"), child.id().to_string()).expect("a note");
}

fn children_go_too() {
    let mut link = reached();
    let child = fs::read_to_string(note("child")).expect("a note");
    fs::remove_file(note("child")).expect("a note");
    let child = open(child.parse().expect("a number"));
    // Only the worker; the rest is up to `reap`.
    let pid = Pid::from_raw(link.pid().expect("a process").cast_signed()).expect("a number");
    kill_process(pid, Signal::KILL).expect("a living process");
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
    assert_dies(&child);
}

fn killed_at_any_moment() {
    let started = Instant::now();
    reached();
    let usual = started.elapsed();
    for step in 0..200 {
        let mut link = launch();
        let deadline = Instant::now() + usual * step / 200;
        while Instant::now() < deadline {
            // Half of the time, the parent is notified and does its part.
            if step % 2 == 0 && link.poll_ready().is_err() {
                break;
            }
        }
        drop(link);
    }
}

/// Starts this test once more, as the parent to be killed, and waits for its worker.
fn second_parent(name: &str) -> (Started, OwnedFd) {
    let mut parent = Again::new(name).env("LAUNCHING_PARENT", "second").start();
    let worker = open(parent.line().parse().expect("a number"));
    (parent, worker)
}

fn is_second_parent() -> bool {
    env::var_os("LAUNCHING_PARENT").is_some()
}

fn dies_with_its_parent() {
    if is_second_parent() {
        let link = reached();
        println!("{}", link.pid().expect("a process"));
        sleep();
    }
    let (mut parent, worker) = second_parent("a_worker_dies_with_its_parent");
    // It is not to notice that nobody is there any more.
    pidfd_send_signal(&worker, Signal::STOP).expect("a living process");
    parent.kill();
    assert_dies(&worker);
}

/// Killed while its workers start, and start again, nobody stays and no file.
fn parent_killed_at_any_moment() {
    if is_second_parent() {
        drop(reached());
        println!("ready");
        loop {
            drop(reached());
        }
    }
    let started = Instant::now();
    reached();
    let usual = started.elapsed();
    let mut seed = 42_u32;
    for _ in 0..300 {
        // By a generator of Lehmer's: any moment of two launches, one as likely as the other.
        seed = (u64::from(seed) * 48271 % 0x7fff_ffff) as u32;
        let moment = usual * 2 * (seed % 1000) / 1000;
        let again = Again::new("a_parent_killed_at_any_moment_leaves_nothing");
        let mut parent = again.env("LAUNCHING_PARENT", "second").start();
        assert_eq!(parent.line(), "ready");
        let ready = Instant::now();
        while ready.elapsed() < moment {
            std::thread::yield_now();
        }
        parent.kill();
        let killed = Instant::now();
        while !parent.processes().is_empty() {
            assert!(
                killed.elapsed() < LONG,
                "they live: {:?}",
                parent.processes()
            );
            std::thread::yield_now();
        }
        let left = parent.files();
        assert!(left.is_empty(), "seed {seed}, {moment:?}: {left:?}");
    }
}

/// Comes to `init` only when the parent is dead.
fn outlive_parent() {
    let called = env::var("PROCPOOL_WORKER").expect("a call");
    let parent = called.split(':').nth(1).expect("the parent's number");
    let parent = Pid::from_raw(parent.parse().expect("a number")).expect("a process");
    if let Ok(parent) = pidfd_open(parent, PidfdFlags::empty()) {
        is_readable(parent.as_fd(), LONG);
    }
    // A process is dead a moment before its children have another parent.
    let started = Instant::now();
    while getppid() == Some(parent) {
        assert!(started.elapsed() < LONG);
        std::thread::yield_now();
    }
}

fn orphan() {
    if is_worker() {
        fs::write(note("an-orphan-became-the-program"), id().to_string()).expect("a note");
        return;
    }
    if is_second_parent() {
        let link = launch();
        println!("{}", link.pid().expect("a process"));
        sleep();
    }
    let (mut parent, worker) = second_parent("an_orphan_does_not_become_the_program");
    parent.kill();
    assert_dies(&worker);
    assert_eq!(parent.files(), [] as [PathBuf; 0]);
    // The harness finds the note of this one's, if there is one.
    let mut link = launch();
    link.kill();
    reach(&mut *link).expect_err("no worker");
}
