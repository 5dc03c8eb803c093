//! Other processes, as `/proc` shows them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

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

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(raw(pid), signal).expect("the process exists");
}

/// Stops a process, which takes a moment.
pub(crate) fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    wait_for("the process stops", || {
        stat(pid).is_some_and(|stat| stat[0] == "T")
    });
}

pub(crate) fn raw(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process identifier is not zero")
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] != "Z" && stat[0] != "X")
}

/// Whether a process exists, if only as a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    stat(pid).is_some()
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> u32 {
    stat(pid).expect("the process exists")[1]
        .parse()
        .expect("a number")
}

/// The processes, zombies included, that have this parent.
pub(crate) fn children(of: u32) -> Vec<u32> {
    all()
        .filter(|pid| stat(*pid).is_some_and(|stat| stat[1] == of.to_string()))
        .collect()
}

/// The living processes that have this in their environment.
pub(crate) fn with_variable(name: &str, value: &str) -> Vec<u32> {
    let wanted = format!("{name}={value}");
    all()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == wanted.as_bytes()) && is_alive(*pid)
        })
        .collect()
}

/// All processes.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of a process's `stat` behind its name: state, parent, process group...
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The process group of a process.
pub(crate) fn group(pid: u32) -> u32 {
    stat(pid).expect("the process exists")[2]
        .parse()
        .expect("a number")
}

/// The name of a process's thread.
pub(crate) fn name(pid: u32) -> String {
    try_name(pid).expect("the process exists")
}

pub(crate) fn try_name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// A field of a process's `status`.
pub(crate) fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process exists");
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| *name == field).expect("a field");
    value.trim().to_owned()
}

/// What a process's descriptors stand for, by number.
pub(crate) fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process exists");
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            // The one that reads this folder is gone by now.
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// How many mappings of regions a process has.
pub(crate) fn regions(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process exists");
    maps.lines()
        .filter(|line| line.contains("memfd:procpool"))
        .count()
}
