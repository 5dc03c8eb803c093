//! How often this process was forked on the way from the program's start.
//!
//! A process that was forked has copies of its parent's pools. They must not be used, and above
//! all not dropped, for they would kill the parent's workers. Each pool notes the depth that it
//! was built at and is dead at any other.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::sys;

/// What is said to a user of a copy of a pool.
pub(crate) const OF_FORK: &str =
    "this process is a fork of the one that the pool belongs to: build a pool of its own";

static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// To be called by a backend in each process that it forks, before anything else of the crate.
///
/// Forks by others are noticed as well.
pub fn after_fork_in_child() {
    if !notice_fork() {
        DEPTH.fetch_add(1, Ordering::Relaxed);
    }
    sys::memory_counts_from_here();
}

pub(crate) fn depth() -> usize {
    notice_fork();
    DEPTH.load(Ordering::Relaxed)
}

/// Whether this process is a fork and nobody had noticed.
fn notice_fork() -> bool {
    let is_new = match sys::fork_marks().map(|marks| &marks.process) {
        Some(mark) => mark.load(Ordering::Relaxed) == 0 && mark.swap(1, Ordering::AcqRel) == 0,
        None => is_another_process(),
    };
    if is_new {
        DEPTH.fetch_add(1, Ordering::Relaxed);
    }
    is_new
}

/// The same where memory cannot say it: whether this process has another number than the last one
/// that asked.
fn is_another_process() -> bool {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id();
    let last = LAST.swap(own, Ordering::AcqRel);
    last != 0 && last != own
}
