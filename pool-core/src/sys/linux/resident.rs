//! How much memory a process has resident, and how much processor time it has taken.

use std::fs::File;
#[cfg(feature = "sandbox")]
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::process::in_proc;

/// How much of the memory that the system counts for this process was another program's, in bytes.
static INHERITED: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

/// This process was forked, and the system began to count then: of a program that it has not
/// executed, nothing is inherited.
pub(crate) fn memory_counts_from_here() {
    INHERITED.store(0, Ordering::Relaxed);
}

/// The most bytes of memory that this process ever had resident.
pub(crate) fn peak_rss() -> u64 {
    // The cheap answer counts what this process was before it executed this program, which for a
    // worker that was spawned is its parent. Only what exceeds that is its own.
    let usage = getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.max_rss());
    let seen = usage.map_or(0, |kib| kib.unsigned_abs() * 1024);
    let mut inherited = INHERITED.load(Ordering::Relaxed);
    if inherited == UNKNOWN {
        inherited = if high_water() < seen { seen } else { 0 };
        INHERITED.store(inherited, Ordering::Relaxed);
    }
    if seen > inherited { seen } else { high_water() }
}

/// How many bytes of memory a process has resident.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(in_proc(pid)? + "/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// How much processor time a process has taken, with all its threads.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    clock.now().ok().map(Duration::from)
}

/// What of this process is asked for when nothing can be opened any more: its status.
static STATUS: OnceLock<File> = OnceLock::new();

/// From now on, [`peak_rss`] needs nothing that a sandbox takes away.
#[cfg(feature = "sandbox")]
pub(crate) fn keep_status() {
    if INHERITED.load(Ordering::Relaxed) == 0 {
        return;
    }
    let opened = File::open("/proc/self/status").map(OwnedFd::from);
    // Otherwise it is as where there is no `/proc`.
    if let Ok(file) = opened.and_then(crate::sys::unix::off_standard) {
        STATUS.get_or_init(|| file.into());
    }
}

/// The same by a slower way that counts this program alone; 0 where there is no `/proc`.
fn high_water() -> u64 {
    let status = match STATUS.get() {
        None => std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
        Some(file) => {
            let mut bytes = [0; 4096];
            let count = file.read_at(&mut bytes, 0).unwrap_or(0);
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        }
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
