//! From the queue into the workers' rings, and back.

use super::Core;
use crate::engine::parent_channel::ParentChannel;
use crate::engine::scheduler::Imbalance;
use crate::engine::slot_id::SlotId;
use crate::engine::worker_slot::{Killed, Setup};
use crate::shm::ring::Corrupt;
use crate::sys;
use crate::worker::function::FunctionId;

/// How many small tasks are handed out together where a worker has enough of them.
const BATCH: u32 = 16;
/// How soon it is tried again to pass a descriptor that the system has refused to pass, because too
/// many are on their way, in nanoseconds.
const PASS_AGAIN_NS: u64 = 5_000_000;

impl Core {
    /// Hands out what waits, and lets go of workers that are not needed any more.
    pub(in crate::engine) fn dispatch(&mut self) {
        loop {
            self.maintain();
            self.assign();
            self.awaken();
            self.balance();
            let mut anew = false;
            while let Some(slot) = self.scheduler.superfluous(self.notify.is_deciding()) {
                self.retire(slot);
                anew |= self.succeed(slot);
            }
            if !anew && !self.lifecycle.is_maintenance_due() {
                break;
            }
        }
        self.is_dispatched();
    }

    /// Takes back what waits for one worker while another one has nothing to do.
    fn balance(&mut self) {
        self.rebalance_at = loop {
            match self.scheduler.imbalance(sys::now_ns) {
                None => break None,
                Some(Imbalance::AskAgain(when)) => break Some(when),
                Some(Imbalance::TakeBack(slot)) => {
                    // Once for each worker at most: one that was taken back from is not asked again
                    // before it has passed over that.
                    self.begin_reclaim(slot);
                    self.assign();
                }
            }
        };
    }

    /// Hands out what waits.
    fn assign(&mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        let mut fed = None;
        while let Some(slot) = self.scheduler.assign(&mut refused) {
            if let Some(before) = fed.replace(slot)
                && before != slot
            {
                self.publish(before);
            }
            self.put(slot);
            if self.scheduler.is_used_up(slot) {
                self.lifecycle.wants_maintenance();
            }
        }
        if let Some(slot) = fed {
            self.publish(slot);
        }
        for chunk in refused.drain(..) {
            self.refuse(chunk);
        }
        self.refused = refused;
    }

    /// Sends the newest chunk of a worker.
    pub(in crate::engine) fn send(&mut self, slot: SlotId) {
        self.put(slot);
        self.publish(slot);
    }

    /// Lets a worker have what was put into its ring.
    fn publish(&mut self, slot: SlotId) {
        if let Some((_, channel)) = self.slots[slot].up_mut() {
            channel.publish();
        }
    }

    /// Puts the newest chunk of a worker into its ring.
    fn put(&mut self, slot: SlotId) {
        let busy = self.scheduler.busy();
        let watcher = self.watcher;
        // What a worker does to itself is no work of anybody's.
        if !matches!(self.slots[slot].setup(), Setup::Settings) {
            self.notify.sending(self.scheduler.newest_mut(slot));
        }
        #[cfg(feature = "tracing")]
        self.note_origin(slot);
        let Some((process, channel)) = self.slots[slot].up_mut() else {
            return;
        };
        let Some(chunk) = self.scheduler.newest(slot) else {
            return;
        };
        let before = self.scheduler.handed(slot) - u64::from(chunk.count);
        let timed = chunk.timeout;
        // A spinning worker must not take the processor from one that has work, or from us.
        channel.let_spin(busy < self.processors);
        // The wish is written before the work, so that a worker that sees the work sees the wish.
        channel.listen(watcher.wants_bells());
        match channel.put(chunk, before, process.tie.fd_socket()) {
            Ok(all) => {
                if !all {
                    self.scheduler.choke(slot);
                    self.pass_on_soon(slot);
                }
                if let Some(timeout) = timed {
                    // At the earliest then; whether the item began later is looked up then.
                    self.slots[slot].check_deadline_by(sys::now_ns() + timeout.as_ns());
                }
            }
            Err(Corrupt) => self.kill(slot, Killed::ProtocolViolation),
        }
    }

    /// Notifies the workers that memory was freed.
    pub(in crate::engine) fn tell_of_frees(&mut self) {
        for slot in self.slots.ids() {
            // Others have mapped nothing.
            if let Some((process, channel)) = self.slots[slot].up_mut() {
                channel.tell_of_frees(process.tie.fd_socket());
            }
            self.pass_on_soon(slot);
        }
    }

    /// Sees to it that what could not be passed to a worker is tried again soon.
    pub(in crate::engine) fn pass_on_soon(&mut self, slot: SlotId) {
        let waits = |channel: &ParentChannel| !channel.has_passed_all();
        if self.slots[slot].up().is_some_and(|(_, it)| waits(it)) {
            self.slots[slot].check_deadline_by(sys::now_ns() + PASS_AGAIN_NS);
        }
    }

    /// Takes back what a worker was handed and has not begun.
    pub(in crate::engine) fn begin_reclaim(&mut self, slot: SlotId) {
        let Some((_, channel)) = self.slots[slot].up_mut() else {
            // Its worker is dead, and what it had comes back when its death is booked.
            self.scheduler.give_up(slot);
            return;
        };
        let begun = channel.region().begin_reclaim();
        channel.taken_back_behind(begun);
        self.scheduler.reclaimed_up_to(slot, begun);
        channel.listen(self.watcher.wants_bells());
    }

    /// Retires a worker that has nothing to do.
    fn retire(&mut self, slot: SlotId) {
        let finalizer = self.config.finalizer;
        let finalizer = finalizer.filter(|_| self.slots[slot].is_set_up());
        let finalizer = finalizer.map(FunctionId::number);
        let Some((_, channel)) = self.slots[slot].up_mut() else {
            // It is dead, and nothing of it is to be waited for here.
            self.scheduler.give_up(slot);
            return;
        };
        match channel.send_retire(finalizer) {
            Ok(()) => {
                let otherwise = self.scheduler.reason_to_go(slot);
                self.slots[slot].retired(otherwise);
                self.scheduler.retiring(slot);
                self.listen_for_orphans();
            }
            Err(Corrupt) => {
                self.scheduler.retiring(slot);
                self.kill(slot, Killed::ProtocolViolation);
            }
        }
    }

    /// Whether what was submitted just now may stay in the queue for a moment, until there are a
    /// few to be handed out together: a worker has enough of the small tasks that it is at, and
    /// when it has finished one, or a few more were submitted, the queue is looked at.
    pub(in crate::engine) fn may_wait(&mut self) -> bool {
        self.submitted += 1;
        // The submitter of what the worker has may not come to hear of its end before long.
        let is_heard = self.leadership.has_leader() || self.is_heard_by_supervisor();
        self.submitted < BATCH && self.scheduler.is_well_fed() && is_heard
    }

    /// Takes in what has arrived, every so often: a submitter has all that it needs for that in its
    /// processor's cache. While it goes on like that, nobody else finds anything left to do.
    pub(in crate::engine) fn drain_if_due(&mut self) {
        if self.submitted >= BATCH {
            self.submitted = 0;
            if !self.leadership.has_leader() {
                self.drained_early |= self.drain_all();
            }
        }
    }

    /// Whether a submitter has found something in the rings since that was last asked.
    pub(in crate::engine) fn take_drained_early(&mut self) -> bool {
        std::mem::take(&mut self.drained_early)
    }
}
