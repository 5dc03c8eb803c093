//! What the kernel tells of a process and those below it: memory, context switches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The resident memory of a process, or of this one, in bytes.
#[must_use]
pub fn resident_bytes(process: Option<u32>) -> Option<u64> {
    let who = process.map_or_else(|| "self".to_owned(), |process| process.to_string());
    // Exact, unlike `statm`, whose counters are kept per processor and added up now and then.
    let rollup = fs::read_to_string(format!("/proc/{who}/smaps_rollup")).ok()?;
    kilobytes(&rollup, |name| name == "Rss:")
}

/// The memory that would come back if this process alone ended, in bytes.
#[must_use]
pub fn private_bytes(process: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    kilobytes(&rollup, |name| name.starts_with("Private_"))
}

/// The processes below `root`, parents before children, without `root`.
#[must_use]
pub fn below(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        let children = children(parent);
        parents.extend(&children);
        found.extend(children);
    }
    found
}

/// Those below `root` that have no children themselves: its workers, whatever stands between.
#[must_use]
pub fn leaves(root: u32) -> Vec<u32> {
    let mut leaves = below(root);
    leaves.retain(|&process| children(process).is_empty());
    leaves
}

/// How often each thread of `root` and of all below it has ever gone to sleep or been put to sleep.
#[must_use]
pub fn context_switches(root: u32) -> BTreeMap<u32, u64> {
    let mut switches = BTreeMap::new();
    for process in below(root).into_iter().chain([root]) {
        for thread in threads(process) {
            let status = format!("/proc/{process}/task/{thread}/status");
            if let Ok(status) = fs::read_to_string(status) {
                switches.insert(thread, count_switches(&status));
            }
        }
    }
    switches
}

fn children(process: u32) -> Vec<u32> {
    threads(process)
        .into_iter()
        .filter_map(|thread| {
            let list = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
            Some(numbers(&list.ok()?))
        })
        .flatten()
        .collect()
}

fn threads(process: u32) -> Vec<u32> {
    let folder = Path::new("/proc").join(process.to_string()).join("task");
    // It may have ended: then it has none.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn numbers(list: &str) -> Vec<u32> {
    list.split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn count_switches(status: &str) -> u64 {
    let lines = status
        .lines()
        .filter(|line| line.contains("ctxt_switches:"));
    lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn kilobytes(rollup: &str, wanted: impl Fn(&str) -> bool) -> Option<u64> {
    let mut found = rollup.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let count: u64 = words.next()?.parse().ok()?;
        wanted(name).then_some(count * 1024)
    });
    let first = found.next()?;
    Some(first + found.sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let rollup = "00400000-7fff ---p 00000000 00:00 0    [rollup]\nRss:      2048 kB\n\
                      Private_Clean:    4 kB\nPrivate_Dirty:   8 kB\nShared_Clean:  99 kB\n";
        assert_eq!(kilobytes(rollup, |name| name == "Rss:"), Some(2048 << 10));
        let private = kilobytes(rollup, |name| name.starts_with("Private_"));
        assert_eq!(private, Some(12 << 10));
        assert_eq!(kilobytes("", |_| true), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(count_switches(status), 10);
    }

    #[test]
    fn this_process_has_memory_and_a_thread() {
        assert!(resident_bytes(None) > Some(0));
        let own = std::process::id();
        assert!(private_bytes(own) > Some(0));
        assert!(context_switches(own).contains_key(&own));
    }
}
