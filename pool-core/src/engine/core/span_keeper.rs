//! Calls that were made in a span: the events of their items belong to that span.
//!
//! A worker says of each event which of its items it was running. So whatever is handed out is
//! noted before it is sent, beside the pipe that the events come from. The events of an item are
//! all in that pipe when its record is in the ring, for the same thread has written both. So the
//! pipe is read once more before a finished chunk lets go of its span; what comes later comes from
//! other threads that the task has left behind, and is replayed without a span.

use super::Core;
use crate::engine::capture::WorkerPipes;
use crate::engine::slot_id::SlotId;
use crate::engine::work::Delivery;

impl Core {
    /// Notes where the items of a worker's newest chunk come from, which is about to be sent.
    #[inline]
    pub(in crate::engine) fn note_origin(&self, slot: SlotId) {
        let newest = self.scheduler.newest(slot);
        if let Some(chunk) = newest
            && let Some(origin) = chunk.origin()
            && let Some(pipes) = self.pipes(slot)
        {
            let last = self.scheduler.handed(slot);
            let first = last - u64::from(chunk.count) + 1;
            pipes.handed(first, last, chunk.first, origin);
        }
    }

    /// Sees to it that a worker's events of these items are taken in before their span is let
    /// go of.
    #[inline]
    pub(in crate::engine) fn await_events(&self, slot: SlotId, delivery: &mut Delivery) {
        if delivery.has_origin()
            && let Some(pipes) = self.pipes(slot)
        {
            // All before that one have an outcome, and so are done.
            let through = self.scheduler.position(slot, 0);
            delivery.flush_events_by(pipes.event_flusher(through));
        }
    }

    fn pipes(&self, slot: SlotId) -> Option<&WorkerPipes> {
        let (process, _) = self.slots[slot].up()?;
        process.pipes.as_ref()
    }
}
