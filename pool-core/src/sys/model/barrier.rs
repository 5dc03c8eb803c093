//! `membarrier` for loom, as the kernel does it: the caller interrupts the processor of the other
//! process, which executes a fence between any two of its instructions, and waits until that is
//! done. A process that is not on a processor has executed one when it left it, and executes
//! another when it comes back.
//!
//! There is one worker in a model that uses this, so there is one such processor.

use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{for_each_run, thread};

const RUNS: u32 = 0;
const INTERRUPTED: u32 = 1;
const LEFT: u32 = 2;

for_each_run! {
    static ref PROCESSOR: AtomicU32 = AtomicU32::new(RUNS);
}

/// Parent: returns when the worker's processor has executed a fence after this call began.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
    // Whatever synchronises here is by fences; the word's operations order nothing.
    let interrupted =
        PROCESSOR.compare_exchange(RUNS, INTERRUPTED, Ordering::Relaxed, Ordering::Relaxed);
    if interrupted.is_ok() {
        while PROCESSOR.load(Ordering::Relaxed) == INTERRUPTED {
            thread::spin_loop();
        }
    }
    fence(Ordering::SeqCst);
}

/// Worker: an interrupt is taken here, if it has arrived. (A load may still see the old value:
/// then it has not.)
pub(crate) fn interruption() {
    if PROCESSOR.load(Ordering::Relaxed) == INTERRUPTED {
        fence(Ordering::SeqCst);
        PROCESSOR.store(RUNS, Ordering::Relaxed);
    }
}

/// Worker: leaves its processor for a while.
pub(super) fn off_the_processor(sleep: impl FnOnce()) {
    leave_processor();
    sleep();
    PROCESSOR.swap(RUNS, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Worker: leaves its processor, for good if it does not come back.
pub(crate) fn leave_processor() {
    fence(Ordering::SeqCst);
    PROCESSOR.swap(LEFT, Ordering::Relaxed);
}
