//! The processes that come of this run, as `/proc` shows them.

use std::fs;

/// In the environment of every process of a run, with a value of its own.
pub(crate) const MARK: &str = "CHAOS_MARK";

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(&*stat[0], "Z" | "X"))
}

/// The letter for what a process is doing.
pub(crate) fn state(pid: u32) -> Option<String> {
    stat(pid)?.into_iter().next()
}

/// The tracer of a process.
pub(crate) fn tracer(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let tracer = lines.find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// The parents of a process, up to this one, which is not among them.
pub(crate) fn above(pid: u32) -> Vec<u32> {
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
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid)?[1].parse().ok()
}

/// The process group of a process.
pub(crate) fn group(pid: u32) -> Option<u32> {
    stat(pid)?[2].parse().ok()
}

/// When a process was started: with its number, that is its own for good.
pub(crate) fn started(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Its name, cut off at 15 bytes.
pub(crate) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

/// The children of a process, their children, and so on, zombies included.
pub(crate) fn below(pid: u32) -> Vec<u32> {
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

/// Whether a process comes of this run.
pub(crate) fn is_marked(pid: u32) -> bool {
    std::env::var(MARK).is_ok_and(|mark| has_mark(pid, &mark))
}

/// The living processes that have this mark.
pub(crate) fn with_mark(mark: &str) -> Vec<u32> {
    all()
        .filter(|pid| has_mark(*pid, mark) && is_alive(*pid))
        .collect()
}

/// What a process is called, and with which arguments.
pub(crate) fn describe(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
    format!("{pid} ({}, {})", name(pid), arguments.trim())
}

fn has_mark(pid: u32, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|variable| variable == wanted.as_bytes())
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
