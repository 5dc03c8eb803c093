//! How long the engine waits for what.

use std::time::Duration;

use crate::sys;

/// How long after it should have said something a worker is taken to be stuck, in nanoseconds:
/// long enough for a machine on which it is not its turn.
pub(super) const GRACE_NS: u64 = 2_000_000_000;
/// How long after it was killed a worker may take to be gone before its tasks get their outcomes
/// without that, in nanoseconds.
pub(super) const AFTER_KILL_NS: u64 = 100_000_000;
/// The same after a death that nobody ordered. How it ended is what its tasks' errors have to say,
/// and on a busy machine it takes a while until every process that has to report that had a
/// processor.
pub(super) const AFTER_DEATH_NS: u64 = 1_000_000_000;
/// How long after that a pool that ends waits for it.
pub(super) const WAIT: Duration = Duration::from_secs(3);

/// In nanoseconds, as far as they can be counted.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// How long it is until a time of the monotonic clock.
pub(super) fn until(time: u64) -> Duration {
    Duration::from_nanos(time.saturating_sub(sys::now_ns()))
}
