//! Asymmetric fences (membarrier(2)): one side pays for both.

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::thread::{MembarrierCommand, membarrier};

/// Whether [`barrier_everywhere`] works here. It may not in an old kernel or in a sandbox.
pub(crate) fn has_barriers() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| membarrier(MembarrierCommand::GlobalExpedited).is_ok())
}

/// Executes a memory barrier on every thread that runs now in a process that accepts that, and
/// in this one.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
    if has_barriers() && membarrier(MembarrierCommand::GlobalExpedited).is_err() {
        // The kernel is out of memory, or a sandbox was put up in the meantime. What is left is
        // time: a store that a processor has executed is seen by all within nanoseconds.
        let start = Instant::now();
        while start.elapsed() < DRAIN {
            std::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
    }
}

/// How long a store may take, by far, from its execution until every processor sees it.
const DRAIN: Duration = Duration::from_micros(100);

/// Whether this process accepts the barriers of its own threads.
static OWN_BARRIERS: OnceLock<bool> = OnceLock::new();

/// Accepts [`barrier_here`] in this process, if that can be had. The first time takes the kernel
/// ten milliseconds or more, unless the process has one thread.
pub(crate) fn accept_own_barriers() {
    OWN_BARRIERS.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());
}

/// Whether [`barrier_here`] reaches the other threads.
pub(crate) fn has_own_barriers() -> bool {
    OWN_BARRIERS.get().copied().unwrap_or(false)
}

/// Executes a memory barrier on every thread of this process that runs now, if it accepts that,
/// and in any case in this one.
pub(crate) fn barrier_here() {
    fence(Ordering::SeqCst);
    if has_own_barriers() && membarrier(MembarrierCommand::PrivateExpedited).is_err() {
        // As in `barrier_everywhere`.
        let start = Instant::now();
        while start.elapsed() < DRAIN {
            std::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
    }
}

/// Accepts the barriers of other processes. `false`: that cannot be had.
pub(crate) fn accept_barriers() -> bool {
    membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}
