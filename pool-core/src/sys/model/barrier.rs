//! `membarrier` for loom, as the kernel does it: the caller interrupts the processor of the other
//! process, which executes a fence between any two of its instructions, and waits until that is
//! done. A process that is not on a processor has executed one when it left it, and executes
//! another when it comes back.
//!
//! There is one worker in a model that uses this, so there is one such processor.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use loom::sync::atomic::{AtomicU32, Ordering, fence};

use crate::sync::{for_each_run, thread, thread_local};

const RUNS: u32 = 0;
const INTERRUPTED: u32 = 1;
const LEFT: u32 = 2;

/// The worker's.
pub(crate) struct Processor {
    state: AtomicU32,
    /// Whether it can be interrupted. (Not a part of the model: it does not change in it.)
    has_barriers: AtomicBool,
}

for_each_run! {
    static ref PROCESSOR: Processor = Processor {
        state: AtomicU32::new(RUNS),
        has_barriers: AtomicBool::new(true),
    };
}

thread_local! {
    /// Whether this thread is the worker, on its processor.
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

impl Processor {
    /// The kernel knows of no such barriers.
    pub(crate) fn without_barriers() {
        PROCESSOR.has_barriers.store(false, Ordering::Relaxed);
    }

    /// Runs the worker on it.
    pub(crate) fn run<T>(work: impl FnOnce() -> T) -> T {
        if !has_barriers() {
            return work();
        }
        IS_HERE.with(|here| here.set(true));
        let done = work();
        leave();
        done
    }
}

pub(crate) fn has_barriers() -> bool {
    PROCESSOR.has_barriers.load(Ordering::Relaxed)
}

/// Parent: returns when the worker's processor has executed a fence after this call began.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
    if !has_barriers() {
        return;
    }
    // Whatever synchronises here is by fences; the word's operations order nothing.
    let state = &PROCESSOR.state;
    let interrupted =
        state.compare_exchange(RUNS, INTERRUPTED, Ordering::Relaxed, Ordering::Relaxed);
    if interrupted.is_ok() {
        while state.load(Ordering::Relaxed) == INTERRUPTED {
            thread::spin_loop();
        }
    }
    fence(Ordering::SeqCst);
}

/// Worker: an interrupt is taken here, if it has arrived. (A load may still see the old value:
/// then it has not.)
pub(crate) fn interruption() {
    if IS_HERE.with(Cell::get) && PROCESSOR.state.load(Ordering::Relaxed) == INTERRUPTED {
        fence(Ordering::SeqCst);
        PROCESSOR.state.store(RUNS, Ordering::Relaxed);
    }
}

/// Worker: leaves its processor while it sleeps.
pub(super) fn off_the_processor(sleep: impl FnOnce()) {
    if !IS_HERE.with(Cell::get) {
        return sleep();
    }
    leave();
    sleep();
    PROCESSOR.state.swap(RUNS, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    IS_HERE.with(|here| here.set(true));
}

fn leave() {
    IS_HERE.with(|here| here.set(false));
    fence(Ordering::SeqCst);
    PROCESSOR.state.swap(LEFT, Ordering::Relaxed);
}
