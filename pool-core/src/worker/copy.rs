//! A worker, and the copies of it that its tasks make by forking.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// Where memory cannot distinguish a worker from its copies, nothing does.
static UNKNOWN: AtomicU32 = AtomicU32::new(1);

/// Says whether this process is the worker: 1 in it, 0 in a copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Original(&'static AtomicU32);

impl Original {
    /// This process is the worker.
    pub(super) fn here() -> Self {
        let mark = sys::fork_marks().map_or(&UNKNOWN, |marks| &marks.worker);
        mark.store(1, Ordering::Relaxed);
        Self(mark)
    }

    /// Ends this process if it is not the worker but a copy of it, which a task has made by a fork
    /// and let return. The worker answers for the item, or its death does; the copy shares the
    /// rings with it and must not touch them, nor undo what is the worker's.
    #[inline(always)]
    pub(super) fn leave_if_copy(self) {
        if self.0.load(Ordering::Relaxed) == 0 {
            leave();
        }
    }
}

#[cold]
fn leave() -> ! {
    sys::leave(0)
}
