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

/// How late is no accident of scheduling any more, in nanoseconds.
const LATE_NS: u64 = 200_000_000;

/// In nanoseconds, as far as they can be counted.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// How long it is until a time of the monotonic clock.
pub(super) fn until(time: u64) -> Duration {
    Duration::from_nanos(time.saturating_sub(sys::now_ns()))
}

/// How much longer a worker gets, in nanoseconds, when the timer that watches it fires late.
/// `None`: it does not fire late.
///
/// If a timer fires long after it was due, the machine, the container or this process was stopped,
/// and so may the worker have been. So it gets as much time as the timer was late, but no more than
/// it had from the beginning.
pub(super) fn extra_time(due: u64, now: u64, limit: u64) -> Option<u64> {
    let late = now.saturating_sub(due);
    (late > LATE_NS).then_some(late.min(limit))
}
