//! Other processes: waiting for what they do.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use procpool_testing::procfs::{self, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// Not what anything here takes, but when to call it a hang.
pub(crate) const HANG: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// Waits until a descriptor is readable.
pub(crate) fn wait_readable(source: impl AsFd) {
    let mut source = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
    let ready = poll(&mut source, Some(&HANG)).expect("poll works");
    assert_ne!(ready, 0, "nothing came for a minute");
}

/// Waits for something that no descriptor reports.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{what}: not in a minute"
        );
        std::thread::yield_now();
    }
}

/// Whether a descriptor is readable now.
pub(crate) fn is_readable(source: impl AsFd) -> bool {
    is_readable_within(source, Duration::ZERO)
}

pub(crate) fn is_readable_within(source: impl AsFd, time: Duration) -> bool {
    let time = Timespec::try_from(time).expect("it is short");
    let mut source = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
    poll(&mut source, Some(&time)).expect("poll works") > 0
}

/// A pidfd of a process that is known to exist.
pub(crate) fn watch(pid: u32) -> OwnedFd {
    pidfd_open(raw(pid), PidfdFlags::empty()).expect("the process exists")
}

/// Stops a process, which takes a moment.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    wait_for("the process stops", || {
        procfs::state(pid).as_deref() == Some("T")
    });
}

pub(crate) fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process identifier is not zero")
}

/// How many mappings of regions a process has.
pub(crate) fn regions(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process exists");
    maps.lines()
        .filter(|line| line.contains("memfd:procpool"))
        .count()
}
