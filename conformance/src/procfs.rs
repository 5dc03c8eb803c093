//! Other processes, as `/proc` shows them.

use std::fs;
use std::time::Duration;

use procpool::Pool;
use rustix::process::{Pid, Signal, kill_process};

/// Waits until something is true that nothing announces. The watchdog ends a wait that is in vain.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(&*stat[0], "Z" | "X"))
}

/// Waits until none of these processes is alive.
pub fn wait_for_death(pids: &[u32]) {
    wait_until(|| !pids.iter().any(|pid| is_alive(*pid)));
}

/// The process identifiers of a pool's workers that are up.
pub fn workers(pool: &impl Pool) -> Vec<u32> {
    let workers = pool.stats().workers;
    workers.iter().map(|worker| worker.pid()).collect()
}

/// Sends a signal to a process, which may be gone.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process identifier is not zero");
    let _ = kill_process(pid, signal);
}

/// The children of a process, their children, and so on.
pub fn below(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all()
        .filter_map(|pid| Some((pid, stat(pid)?[1].parse().ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|row| row.1 == parent)
                .map(|row| row.0),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// The living children of this process that are called this.
pub fn children_called(name: &str) -> Vec<u32> {
    let own = std::process::id().to_string();
    all()
        .filter(|pid| {
            let called = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            called.trim_end() == name
                && stat(*pid).is_some_and(|stat| stat[1] == own && !matches!(&*stat[0], "Z" | "X"))
        })
        .collect()
}

/// The living processes that have this in their environment.
pub fn with_variable(name: &str, value: &str) -> Vec<u32> {
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

/// The fields of a process's `stat` behind its name: state, parent...
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
