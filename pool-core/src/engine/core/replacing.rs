//! Workers come and go: replaced before they go, when they are idle, when the pool is resized. See
//! "Lifecycle" in `README.md`.

use super::Core;
use crate::engine::positions::PositionId;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::nanoseconds;
use crate::engine::worker_slot::Slot;
use crate::observe::worker_exit::ExitReason;
use crate::sys;

impl Core {
    /// A slot's worker is to be replaced for this reason. It works until its successor is ready.
    fn recycle(&mut self, slot: SlotId, reason: ExitReason) {
        self.slots[slot].plan_departure(reason);
        self.lifecycle.wants_maintenance();
    }

    /// A slot's worker is given nothing more, for this reason, and goes when it has finished what
    /// it runs; its successor need not be ready before.
    pub(in crate::engine) fn part_with(&mut self, slot: SlotId, reason: ExitReason) {
        self.recycle(slot, reason);
        self.dismiss(slot);
    }

    /// Sees to it that workers that are to retire have successors, and that they retire when these
    /// are ready.
    pub(in crate::engine) fn maintain(&mut self) {
        if !self.lifecycle.take_maintenance() || !self.scheduler.wants_worker() {
            return;
        }
        for position in self.lifecycle.positions().all() {
            let Some(active) = self.lifecycle.positions().active(position) else {
                continue;
            };
            let is_over = self.slots[active].is_to_go();
            if !is_over && !self.scheduler.is_used_up(active) {
                continue;
            }
            match self.lifecycle.positions().successor(position) {
                None if self.slots[active].goes_without_successor() => self.dismiss(active),
                None if self.lifecycle.positions().is_crowded(position) => {}
                None => {
                    self.occupy(position);
                    if self.scheduler.is_retiring(active) {
                        self.succeed(active);
                    }
                }
                Some(successor) if is_over && self.is_ready(successor) => self.dismiss(active),
                Some(_) => {}
            }
            if self.is_much_too_large(active) {
                // It must not grow while a slow initializer runs elsewhere.
                self.dismiss(active);
            }
        }
    }

    /// A slot that nobody needs gets a worker for this position.
    fn occupy(&mut self, position: PositionId) {
        let slot = self.slots.find(Slot::is_vacant).unwrap_or_else(|| {
            self.scheduler.add_worker();
            self.slots.push(Slot::new(None))
        });
        self.lifecycle.appoint(position, slot);
        self.scheduler.serve(slot, position.index());
        self.slots[slot].occupy(position);
        self.has_errand = true;
    }

    /// Whether a slot's worker could run a task.
    fn is_ready(&self, slot: SlotId) -> bool {
        let slot = &self.slots[slot];
        slot.up().is_some() && slot.is_set_up() && !slot.is_killed()
    }

    /// Whether a slot's worker waits for another one to go.
    pub(in crate::engine) fn is_successor(&self, slot: SlotId) -> bool {
        let position = self.slots[slot].position();
        position
            .is_some_and(|position| self.lifecycle.positions().successor(position) == Some(slot))
    }

    /// A slot's worker finishes what it runs and then goes.
    fn dismiss(&mut self, slot: SlotId) {
        // The thread that waits for what it runs may not come to see that it has finished.
        self.listen_for_orphans();
        if self.scheduler.dismiss(slot) {
            self.begin_reclaim(slot);
        }
    }

    /// A slot's worker runs no more tasks: it was retired, or is dead. Its successor, if it has
    /// one, is active from now on; says whether it has.
    pub(in crate::engine) fn succeed(&mut self, slot: SlotId) -> bool {
        let Some(position) = self.slots[slot].position() else {
            return false;
        };
        if self.lifecycle.positions().active(position) != Some(slot) {
            return false;
        }
        let Some(successor) = self.lifecycle.succeed(position) else {
            return false;
        };
        self.leave(slot, position);
        self.scheduler.release(successor);
        self.is_idle_from_now(successor);
        true
    }

    /// A slot's worker has no position any more.
    fn leave(&mut self, slot: SlotId, position: PositionId) {
        if self.slots[slot].leave() {
            self.lifecycle.left(position);
        }
    }

    /// A slot's worker is dead: its successor gets its position, if it has one.
    pub(in crate::engine) fn make_way(&mut self, slot: SlotId) {
        self.succeed(slot);
        if let Some(position) = self.slots[slot].is_gone() {
            self.lifecycle.is_gone(position);
        }
    }

    /// A successor cannot be started, for want of descriptors perhaps: then the worker that it was
    /// to replace goes first, as its position is worth more than the time that is lost. `false`: it
    /// is none.
    pub(in crate::engine) fn do_without_successor(&mut self, slot: SlotId) -> bool {
        let Some(position) = self.slots[slot]
            .position()
            .filter(|_| self.is_successor(slot))
        else {
            return false;
        };
        self.slots[slot].leave();
        if let Some(active) = self.lifecycle.dismiss_successor(position) {
            self.slots[active].go_without_successor();
        }
        true
    }

    /// The workers of this position finish what they run and go, and no other ones come.
    fn vacate(&mut self, position: PositionId, reason: ExitReason) {
        for slot in self.lifecycle.clear(position) {
            self.leave(slot, position);
            // The reason is the worker's, and not that of the next one in this slot.
            if !self.slots[slot].is_down() {
                self.slots[slot].must_go(reason);
                // One that is still on its way goes when it has come.
                self.dismiss(slot);
            }
        }
    }

    /// A worker has come that nobody needs any more.
    pub(in crate::engine) fn send_away(&mut self, slot: SlotId) {
        self.slots[slot].must_go(ExitReason::Resized);
        self.dismiss(slot);
    }

    /// A worker has finished a chunk, or has come so far that it could be given one.
    pub(in crate::engine) fn check_limits(&mut self, slot: SlotId) {
        if self.config.lifecycle.has_sandbox() {
            self.tell_of_refusals(slot);
        }
        if let Some(limit) = self.config.lifecycle.max_memory
            && self.resident(slot) > limit
        {
            self.recycle(slot, ExitReason::MaxMemory);
        }
        if !self.scheduler.is_busy(slot) {
            self.is_idle_from_now(slot);
        }
    }

    /// Whether a slot's worker holds twice as much memory as it may.
    fn is_much_too_large(&self, slot: SlotId) -> bool {
        let limit = self.config.lifecycle.max_memory;
        limit.is_some_and(|limit| self.resident(slot) > limit.saturating_mul(2))
    }

    /// How much memory a slot's worker holds, in bytes, as it says itself.
    pub(in crate::engine) fn resident(&self, slot: SlotId) -> u64 {
        let worker = self.slots[slot].up();
        worker.map_or(0, |(_, channel)| channel.region().resident())
    }

    pub(in crate::engine) fn is_idle_from_now(&mut self, slot: SlotId) {
        if self.config.lifecycle.idle_timeout.is_some() {
            self.slots[slot].is_idle_since(sys::now_ns());
        }
    }

    /// When a worker is too old or has been idle for too long, in nanoseconds.
    pub(in crate::engine) fn next_maintenance(&self) -> Option<u64> {
        if !self.config.lifecycle.has_timers() || !self.end.is_open() {
            return None;
        }
        let ages = self.slots.iter().filter_map(|(index, slot)| {
            let limit = nanoseconds(self.config.lifecycle.max_age?);
            let counts = self.is_ready(index) && !slot.is_to_go() && !self.is_successor(index);
            counts.then_some(slot.born().saturating_add(limit))
        });
        let idle = self.may_sleep().then(|| {
            let ends = self.slots.ids().filter_map(|slot| self.idle_until(slot));
            ends.min()
        });
        ages.chain(idle.flatten()).min()
    }

    /// Whether there are more workers than there must be.
    fn may_sleep(&self) -> bool {
        self.config.lifecycle.idle_timeout.is_some()
            && self.lifecycle.positions().awake() > self.config.lifecycle.min_processes
    }

    /// When a slot's worker has been idle for too long, if it is idle.
    fn idle_until(&self, slot: SlotId) -> Option<u64> {
        let limit = nanoseconds(self.config.lifecycle.idle_timeout?);
        let position = self.slots[slot].position()?;
        let is_idle = self.is_ready(slot)
            && !self.scheduler.is_busy(slot)
            && !self.scheduler.is_reclaimed(slot)
            && !self.slots[slot].is_to_go()
            && !self.is_successor(slot)
            && !self.lifecycle.positions().is_crowded(position);
        is_idle.then(|| self.slots[slot].idle_since().saturating_add(limit))
    }

    /// Replaces workers that are too old, and lets those go that have been idle for too long.
    pub(in crate::engine) fn on_maintenance(&mut self, now: u64) {
        if self.next_maintenance().is_none_or(|due| due > now) {
            return;
        }
        for slot in self.slots.ids() {
            if let Some(limit) = self.config.lifecycle.max_age
                && self.is_ready(slot)
                && self.slots[slot].born().saturating_add(nanoseconds(limit)) <= now
            {
                self.recycle(slot, ExitReason::MaxAge);
            }
            if self.may_sleep()
                && self.idle_until(slot).is_some_and(|until| until <= now)
                && let Some(position) = self.slots[slot].position()
            {
                self.vacate(position, ExitReason::Idle);
            }
        }
        self.dispatch();
    }

    /// Wakes positions that sleep, as many as there are items for.
    pub(in crate::engine) fn awaken(&mut self) {
        if self.scheduler.has_pinned() {
            for position in self.lifecycle.positions().all() {
                if self.scheduler.is_wanted(position.index())
                    && self.lifecycle.positions().is_parked(position)
                {
                    self.occupy(position);
                }
            }
        }
        while let Some(position) = self.lifecycle.positions().parked() {
            let awake = self.lifecycle.positions().awake();
            if self.scheduler.has_more_than(awake) {
                self.occupy(position);
            } else {
                break;
            }
        }
    }

    /// Makes the pool larger or smaller.
    pub(in crate::engine) fn resize(&mut self, processes: usize) {
        while self.lifecycle.positions().open() < processes {
            let position = self.lifecycle.open_another();
            self.scheduler.open_position(position.index());
            self.occupy(position);
        }
        while self.lifecycle.positions().open() > processes {
            let open = self
                .lifecycle
                .positions()
                .all()
                .filter(|position| !self.lifecycle.positions().is_closed(*position));
            // The one that does least goes first.
            let Some(position) = open.rev().min_by_key(|position| self.activity(*position)) else {
                break;
            };
            self.close_position(position);
        }
        self.dispatch();
    }

    fn close_position(&mut self, position: PositionId) {
        self.lifecycle.close(position);
        self.scheduler.close_position(position.index());
        self.vacate(position, ExitReason::Resized);
    }

    /// How much would be lost with a position, for comparison.
    fn activity(&self, position: PositionId) -> (bool, bool, usize) {
        let Some(slot) = self.lifecycle.positions().active(position) else {
            return (false, false, 0);
        };
        let chunks = self.scheduler.in_flight(slot).count();
        (true, self.is_ready(slot), chunks)
    }

    /// The first worker of a position that the pool was given later cannot be started: then the
    /// pool stays smaller. `false`: it is another one.
    pub(in crate::engine) fn stay_smaller(&mut self, slot: SlotId) -> bool {
        let position = self.slots[slot].position();
        let is_new = |position: &PositionId| self.lifecycle.positions().generation(*position) == 0;
        let Some(position) = position
            .filter(is_new)
            .filter(|_| self.lifecycle.positions().open() > 1)
        else {
            return false;
        };
        self.close_position(position);
        true
    }
}
