//! Processes, as `/proc` shows them.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody says when a file of /proc changes"
)]

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Waits until something is true that nothing announces. The watchdog ends a wait that is in vain.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal to a process, which may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process identifier is not zero");
    let _ = kill_process(pid, signal);
}

/// Waits until none of these processes is alive.
pub fn wait_for_death(pids: &[u32]) {
    wait_until(|| !pids.iter().any(|pid| is_alive(*pid)));
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(&*stat[0], "Z" | "X"))
}

/// The letter for what a process is doing.
pub fn state(pid: u32) -> Option<String> {
    stat(pid)?.into_iter().next()
}

/// Whether a process exists, if only as a zombie.
pub fn exists(pid: u32) -> bool {
    stat(pid).is_some()
}

/// The tracer of a process.
pub fn tracer(pid: u32) -> Option<u32> {
    let tracer = status(pid, "TracerPid")?;
    tracer.parse().ok().filter(|tracer| *tracer != 0)
}

/// The parents of a process, up to this one, which is not among them.
pub fn above(pid: u32) -> Vec<u32> {
    let own = std::process::id();
    let mut above = Vec::new();
    let mut next = parent(pid);
    while let Some(one) = next.filter(|one| *one > 1 && *one != own) {
        above.push(one);
        next = parent(one);
    }
    above
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?[1].parse().ok()
}

/// The process group of a process.
pub fn group(pid: u32) -> Option<u32> {
    stat(pid)?[2].parse().ok()
}

/// When a process was started: with its number, that is its own for good.
pub fn started(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Its name, cut off at 15 bytes. Empty: it is gone.
pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// A field of its `status`.
pub fn status(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| *name == field)?;
    Some(value.trim().to_owned())
}

/// What the descriptors of a process that exists stand for, by number.
pub fn descriptors(pid: u32) -> BTreeMap<u32, String> {
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

/// Whether a mapping or a descriptor of this name is memory that a pool shares with its workers:
/// a region, or what nobody changes any more.
pub fn is_pools_memory(name: &str) -> bool {
    name.contains("/memfd:procpool") || name.contains("/dev/shm/procpool-")
}

/// Whether it is memory that nobody changes any more.
pub fn is_sealed_memory(name: &str) -> bool {
    // The second one is what there is without Linux's own calls.
    name.contains("/memfd:procpool-shared") || name.contains("/dev/shm/procpool-shared-")
}

/// The children of a process, zombies included.
pub fn children(of: u32) -> Vec<u32> {
    all().filter(|pid| parent(*pid) == Some(of)).collect()
}

/// The living children of this process that are called this.
pub fn children_called(name: &str) -> Vec<u32> {
    let mut found = children(std::process::id());
    found.retain(|pid| is_alive(*pid) && self::name(*pid) == name);
    found
}

/// The processes below this one that are called this.
pub fn below_called(name: &str) -> Vec<u32> {
    let mut found = below(std::process::id());
    found.retain(|pid| self::name(*pid) == name);
    found
}

/// The children of a process, their children, and so on, zombies included.
pub fn below(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        let children = parents.iter().filter(|row| row.1 == above);
        found.extend(children.map(|row| row.0));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether a process has this in its environment.
pub fn has_variable(pid: u32, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|variable| variable == wanted.as_bytes())
}

/// The living processes that have this in their environment.
pub fn with_variable(name: &str, value: &str) -> Vec<u32> {
    all()
        .filter(|pid| has_variable(*pid, name, value) && is_alive(*pid))
        .collect()
}

/// What a process is called, and with which arguments.
pub fn describe(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    format!("{pid} ({}, {})", name(pid), arguments.trim())
}

/// All processes.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The fields of a process's `stat` behind its name: state, parent...
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
