//! How often this process was forked on the way from the program's start.
//!
//! A process that was forked has copies of its parent's pools. They must not be used, and above
//! all not dropped, for they would kill the parent's workers. Each pool notes the depth that it
//! was built at and is dead at any other.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sys;

static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// To be called by a backend in each process that it forks, before anything else of the crate.
///
/// Forks by others are noticed as well, where the kernel can tell (Linux 4.14 or later).
pub fn forked_child() {
    if !notice_fork() {
        DEPTH.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn depth() -> usize {
    notice_fork();
    DEPTH.load(Ordering::Relaxed)
}

/// Whether this process is a fork and nobody had noticed.
fn notice_fork() -> bool {
    let mark = sys::fork_mark();
    let is_new = mark.load(Ordering::Relaxed) == 0 && mark.swap(1, Ordering::AcqRel) == 0;
    if is_new {
        DEPTH.fetch_add(1, Ordering::Relaxed);
    }
    is_new
}
