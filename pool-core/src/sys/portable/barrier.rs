//! Without asymmetric fences: each side executes its own.

use std::sync::atomic::{Ordering, fence};

/// Whether [`barrier_everywhere`] reaches other processes.
pub(crate) fn has_barriers() -> bool {
    false
}

/// A memory barrier in this thread.
pub(crate) fn barrier_everywhere() {
    fence(Ordering::SeqCst);
}

/// Accepts the barriers of other processes. `false`: that cannot be had.
pub(crate) fn accept_barriers() -> bool {
    false
}

/// Accepts [`barrier_here`] in this process, if that can be had.
pub(crate) fn accept_own_barriers() {}

/// Whether [`barrier_here`] reaches the other threads.
pub(crate) fn has_own_barriers() -> bool {
    false
}

/// A memory barrier in this thread.
pub(crate) fn barrier_here() {
    fence(Ordering::SeqCst);
}
