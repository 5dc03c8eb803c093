//! Where an executor counts its items.

use std::sync::{Arc, PoisonError};

use crate::observe::stats::Stats;
use crate::sync::{Mutex, MutexGuard};

/// How many items an [`Executor`](crate::Executor) was given, and how they have ended: what
/// [`Stats`] say of items.
///
/// Each chunk that is submitted is [counted in](crate::Chunk::count_in) them. Its items count as
/// ended before anybody learns of their outcomes. An item that is tried again has not ended. (So a
/// pool that hands its chunks to another one counts them itself: there, each attempt is an item.)
#[derive(Debug, Clone, Default)]
pub struct ItemCounts(Arc<Mutex<Stats>>);

impl ItemCounts {
    /// What was counted. So many items are `queued`, as their executor knows, or has known a moment
    /// ago; the others that have not ended are `running`.
    #[must_use]
    pub fn stats(&self, queued: u64) -> Stats {
        let mut stats = self.lock().clone();
        let unfinished = stats.submitted - stats.succeeded - stats.failed;
        stats.queued = queued.min(unfinished);
        stats.running = unfinished - stats.queued;
        stats
    }

    /// Something has come, or ended.
    pub(super) fn update(&self, update: impl FnOnce(&mut Stats)) {
        update(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Stats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
