//! What happened in a pool so far.

use crate::worker::WorkerInfo;

/// A snapshot of a pool's counters. Items are counted, not calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Items that were submitted.
    pub submitted: u64,
    /// Items that ended with a value.
    pub succeeded: u64,
    /// Items that ended with an error.
    pub failed: u64,
    /// Items that wait in the pool's queue.
    pub queued: u64,
    /// Items that were handed to a worker and have not ended.
    pub running: u64,
    /// Workers that were started, replacements included.
    pub workers_started: u64,
    /// Workers that did not leave in good order: they crashed, or were killed, also by the pool
    /// at an item's deadline.
    pub workers_lost: u64,
    /// Lines of captured output that were lost because their handler was too slow: see
    /// [`Output::lines`](crate::Output::lines).
    pub lines_dropped: u64,
    /// The workers that are up now.
    pub workers: Vec<WorkerInfo>,
}
