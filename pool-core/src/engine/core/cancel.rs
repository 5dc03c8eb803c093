//! How a call is ended early: what has not begun is reclaimed, and the running item is asked to
//! stop or killed. Deadlines end items in the same way.

use super::Core;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::GRACE_NS;
use crate::engine::work_unit::WorkUnit;
use crate::engine::worker_slot::{Killed, Notice};
use crate::error::task_error::TaskError;
use crate::sync::atomic::Ordering;
use crate::sys;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::executor::Cancel;

/// How long the queue is left alone after it was looked through for cancelled tasks, in nanoseconds
/// for each task that waits there: a look takes a few for each.
const SWEEP_NS: u64 = 500;

impl Core {
    /// Ends a call early, and says whether an item of it runs. A single task is not always looked
    /// for in the queue, which may be long: its handle has its outcome, and it is removed soon,
    /// with others.
    pub(in crate::engine) fn cancel(&mut self, call: CallId, how: Cancel) -> bool {
        let mut runs = false;
        self.listen_for_orphans();
        for slot in self.slots.ids() {
            let is_here = self
                .scheduler
                .in_flight(slot)
                .any(|chunk| chunk.call() == call);
            if is_here {
                runs |= self.stop(slot, call, how);
            }
        }
        if !call.is_single() {
            for chunk in self.scheduler.extract(|chunk| chunk.call() == call) {
                self.notify.fail(chunk, TaskError::cancelled());
            }
        } else if !runs {
            // It may be long until its turn comes.
            for chunk in self.scheduler.extract_delayed(|it| it.call() == call) {
                self.notify.fail(chunk, TaskError::cancelled());
            }
            self.sweep_soon();
        }
        self.dispatch();
        runs
    }

    /// A task in the queue may have been cancelled. It is removed at once, unless the queue was
    /// looked through a moment ago: until then it keeps its descriptors open, and shared memory.
    fn sweep_soon(&mut self) {
        let pause = SWEEP_NS.saturating_mul(self.scheduler.queue_len() as u64);
        let soonest = self.swept_at.saturating_add(pause);
        // Where there is a bound, it takes the room of others.
        if self.config.max_queued.is_some() || soonest <= sys::now_ns() {
            self.sweep();
        } else {
            self.sweep_at.get_or_insert(soonest);
        }
    }

    /// Removes from the queue what is not to begin any more.
    pub(super) fn sweep(&mut self) {
        self.sweep_at = None;
        for chunk in self.scheduler.extract(WorkUnit::is_refused) {
            self.refuse(chunk);
        }
        self.swept_at = sys::now_ns();
    }

    /// Takes back what waits behind a slot's running item, and stops that if it is of this call.
    fn stop(&mut self, slot: SlotId, call: CallId, how: Cancel) -> bool {
        let Some(item) = self.freeze_running_item(slot) else {
            if how == Cancel::Kill {
                // It says that it runs nothing. Then it will have passed over all this soon.
                let soon = sys::now_ns() + GRACE_NS;
                self.slots[slot].check_deadline_by(soon);
            }
            return false;
        };
        let chunk = self.scheduler.unit_of(slot, item);
        if chunk.is_none_or(|chunk| chunk.call() != call) {
            return false;
        }
        let grace = chunk.and_then(Chunk::grace_ns);
        match (how, grace) {
            (Cancel::Kill, _) => self.kill(slot, Killed::Cancelled),
            (Cancel::Cooperative, Some(grace)) => {
                self.give_notice(slot, item, Killed::Cancelled, grace);
            }
            (Cancel::Cooperative, None) => self.ask_to_stop(slot, item),
        }
        true
    }

    /// Asks the running item to stop, and kills it after so many nanoseconds. The first time that
    /// it was given stays.
    pub(super) fn give_notice(&mut self, slot: SlotId, item: u64, why: Killed, grace: u64) {
        self.ask_to_stop(slot, item);
        let due = sys::now_ns() + grace;
        self.slots[slot].give_notice(Notice { item, why, due });
        self.slots[slot].check_deadline_by(due);
    }

    /// Lets the running item know that it should stop.
    fn ask_to_stop(&mut self, slot: SlotId, item: u64) {
        if let Some((_, channel)) = self.slots[slot].up() {
            let advice = &channel.region().words().advice;
            advice.cancelled.store(item, Ordering::Relaxed);
            // It may wait for the reader of what it emits.
            channel.wake();
        }
    }

    /// Sees to it that a slot's worker begins nothing new, and gives the number, counted from 1,
    /// of the item that it runs. A kill after that, still under the lock, ends that
    /// item and no other.
    pub(super) fn freeze_running_item(&mut self, slot: SlotId) -> Option<u64> {
        if !self.scheduler.is_reclaimed(slot) {
            self.begin_reclaim(slot);
        }
        // After that, or what it began in between would look as if it had ended.
        self.drain_slot(slot);
        self.scheduler.frozen_item(slot)
    }
}
