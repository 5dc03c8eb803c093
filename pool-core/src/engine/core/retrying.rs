//! Items that are tried again. Their calls decide that, outside of the lock: see "Retries" in
//! `../README.md`.

use super::Core;
use crate::engine::work::{Delivery, Verdict};
use crate::engine::work_unit::WorkUnit;
use crate::sys;
use crate::task::chunk::Chunk;

impl Core {
    /// Takes away what is undecided: whoever takes it says [what was decided](Self::decided).
    pub(in crate::engine) fn take_undecided(&mut self) -> Vec<Delivery> {
        self.notify.take_undecided()
    }

    /// Whether there is something to be decided that nobody has taken.
    pub(in crate::engine) fn has_undecided(&self) -> bool {
        self.notify.has_undecided()
    }

    /// It was decided what of some deliveries stays, and what is tried again.
    pub(in crate::engine) fn decided(&mut self, verdicts: Vec<Verdict>) {
        for verdict in verdicts {
            self.notify.decided(verdict.count, verdict.ended);
            for chunk in verdict.again {
                self.resubmit(chunk);
            }
        }
    }

    /// Takes a chunk whose item is tried again. It does not count as a new one, and may come after
    /// the pool was closed.
    fn resubmit(&mut self, mut chunk: Chunk) {
        if let Some(reason) = self.end.reason() {
            let reason = reason.clone();
            return self.notify.fail(chunk, reason);
        }
        if chunk.is_abandoned() || !self.admit(&mut chunk) {
            return self.refuse(chunk);
        }
        if self.is_joined
            && let Some(emissions) = chunk.emissions()
        {
            emissions.lift_bound();
        }
        if let Some(chunk) = self.delay(chunk) {
            self.put_ahead(chunk);
        }
    }

    /// Lets a chunk begin ahead of others of its priority.
    fn put_ahead(&mut self, chunk: Chunk) {
        self.outrank(chunk.priority());
        self.scheduler.resubmit(chunk);
    }

    /// Keeps a chunk until it may begin. It comes back if it may.
    pub(super) fn delay(&mut self, chunk: Chunk) -> Option<Chunk> {
        let due = chunk.due();
        if due == 0 || due <= sys::now_ns() {
            return Some(chunk);
        }
        self.scheduler.delay(chunk, due);
        None
    }

    /// The time of chunks has come that were not to begin before.
    pub(super) fn release_due(&mut self, now: u64) {
        for chunk in self.scheduler.take_due(now).into_iter().rev() {
            self.put_ahead(chunk);
        }
        self.dispatch();
    }
}
