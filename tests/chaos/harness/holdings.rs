//! What this process holds.

use procpool_testing::procfs;
use std::fmt;
use std::fs;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Mappings that another process may share.
    pub(crate) shared: usize,
    /// All mappings.
    pub(crate) mappings: usize,
    /// Processes below, zombies included.
    pub(crate) processes: usize,
    /// Memory that this process has for itself alone, in KiB.
    pub(crate) private: u64,
}

/// What the allocator may keep, in KiB.
const KEPT: u64 = 16 << 10;

impl Holdings {
    pub(crate) fn now() -> Self {
        let entries = |path: &str| fs::read_dir(path).expect("there is a /proc").count();
        let maps = fs::read_to_string("/proc/self/maps").expect("there is a /proc");
        Self {
            // Without the one that looks.
            descriptors: entries("/proc/self/fd") - 1,
            threads: entries("/proc/self/task"),
            shared: maps.lines().filter(|line| is_shared(line)).count(),
            mappings: maps.lines().count(),
            processes: procfs::below(std::process::id()).len(),
            private: kib("/proc/self/smaps_rollup", "Private_Dirty:"),
        }
    }

    /// Whether nothing is there that was not before. Of memory that is this process's own, the
    /// allocator keeps a little.
    pub(crate) fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.shared <= before.shared
            && self.processes <= before.processes
            && self.private <= before.private + KEPT
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} descriptors, {} threads, {} mappings ({} shared), {} processes, {} KiB",
            self.descriptors,
            self.threads,
            self.mappings,
            self.shared,
            self.processes,
            self.private
        )
    }
}

/// The most memory that this process ever had, in KiB.
pub(crate) fn peak() -> u64 {
    kib("/proc/self/status", "VmHWM:")
}

/// Where this process's descriptors lead; of a Unix socket, what the kernel knows of it.
pub(crate) fn descriptors() -> Vec<String> {
    let sockets = fs::read_to_string("/proc/self/net/unix").unwrap_or_default();
    let entries = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let target = target.display().to_string();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|it| it.strip_suffix(']'));
            let is_it = |line: &&str| line.split_whitespace().any(|word| Some(word) == inode);
            let socket = sockets.lines().find(is_it).unwrap_or_default();
            Some(format!(
                "{} -> {target} {socket}",
                entry.file_name().display()
            ))
        })
        .collect()
}

fn is_shared(line: &str) -> bool {
    let permissions = line.split_whitespace().nth(1);
    permissions.is_some_and(|permissions| permissions.ends_with('s'))
}

fn kib(path: &str, field: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0)
}
