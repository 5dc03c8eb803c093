//! How much memory and processor time a process has taken, as far as it says so of itself.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// What the system counts is this program's alone, or nobody knows better.
pub(crate) fn memory_counts_from_here() {}

/// The most bytes of memory that this process ever had resident.
pub(crate) fn peak_rss() -> u64 {
    let unit = if cfg!(target_vendor = "apple") {
        1
    } else {
        1024
    };
    let usage = getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.max_rss());
    usage.map_or(0, |count| u64::try_from(count).unwrap_or(0) * unit)
}

/// How many bytes of memory a process has resident: nobody says.
pub(crate) fn rss(_pid: u32) -> Option<u64> {
    None
}

/// How much processor time a process has taken: nobody says.
pub(crate) fn cpu_time(_pid: u32) -> Option<Duration> {
    None
}

/// [`peak_rss`] needs nothing that a sandbox takes away.
#[cfg(feature = "sandbox")]
pub(crate) fn keep_status() {}
