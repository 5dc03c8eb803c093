//! How often this process was forked on the way from the program's start.
//!
//! A worker that was forked has copies of its parent's pools. They must not be used, and above
//! all not dropped, for they would kill the parent's workers. Each pool notes the depth that it
//! was built at and is dead at any other.

use std::sync::atomic::{AtomicUsize, Ordering};

static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// To be called by a backend in each process that it forks, before anything else of the crate.
pub fn forked_child() {
    DEPTH.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn depth() -> usize {
    DEPTH.load(Ordering::Relaxed)
}
