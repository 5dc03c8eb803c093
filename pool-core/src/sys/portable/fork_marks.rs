//! Memory that a process clears once it was forked.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

/// Two words that are each 0 in a process that was just forked, until it sets them.
#[derive(Debug)]
pub(crate) struct ForkMarks {
    /// 1 in this process, once it was asked for.
    pub(crate) process: AtomicU32,
    /// 1 in a worker that serves.
    pub(crate) worker: AtomicU32,
}

static MARKS: ForkMarks = ForkMarks {
    process: AtomicU32::new(0),
    worker: AtomicU32::new(0),
};

/// See [`ForkMarks`]. `None`: the C library has no memory for what is to be done after a fork. Who
/// forks by a system call of his own, and not by the C library's, is not noticed.
pub(crate) fn fork_marks() -> Option<&'static ForkMarks> {
    static HEARS: OnceLock<bool> = OnceLock::new();
    let hears = HEARS.get_or_init(|| {
        // SAFETY: the function does what a process may that was forked while there were threads: it
        // stores into two atomics. The object that it is in is never unloaded.
        let registered = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        MARKS.process.store(1, Ordering::Relaxed);
        registered == 0
    });
    hears.then_some(&MARKS)
}

extern "C" fn forked() {
    MARKS.process.store(0, Ordering::Relaxed);
    MARKS.worker.store(0, Ordering::Relaxed);
}
