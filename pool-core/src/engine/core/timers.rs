//! What a pool does because time has passed: when, and what is due. The thread that has the lock
//! acts; the supervisor wakes for it. Deadlines of items and calls are in
//! [`deadlines`](super::deadlines).

use super::Core;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::{extra_time, nanoseconds};
use crate::engine::worker_slot::{Killed, Phase};
use crate::sys;

impl Core {
    /// When something must be done even if nothing happens, in nanoseconds; `rebalance`: the
    /// look for an imbalance included.
    pub(in crate::engine) fn next_timer(&self, rebalance: bool) -> Option<u64> {
        self.timer(true, rebalance)
    }

    /// The same for the leader, which leaves launches, deaths and replacements to the supervisor:
    /// see [`next_supervisor_timer`](Self::next_supervisor_timer).
    pub(in crate::engine) fn next_leader_timer(&self) -> Option<u64> {
        self.timer(false, true)
    }

    fn timer(&self, supervisor: bool, rebalance: bool) -> Option<u64> {
        let maintenance = if supervisor {
            self.next_maintenance()
        } else {
            None
        };
        let launches = supervisor && self.launches();
        // A plain loop: this is asked after every task that is submitted.
        let mut next = self.next_deadline;
        if let Some(due) = self.scheduler.next_due() {
            next = next.min(due);
        }
        for slot in self.slots.values() {
            if !slot.is_killed() {
                if let Some(deadline) = slot.deadline_check_due() {
                    next = next.min(deadline);
                }
                if let Some(polled_at) = slot.polled_at() {
                    next = next.min(polled_at);
                }
                if let Phase::Starting { give_up, process } = slot.phase()
                    && supervisor
                {
                    next = next.min(*give_up).min(process.asked_at());
                }
            }
            if let Some(due) = slot.death_due()
                && supervisor
            {
                next = next.min(due).min(slot.phase().asked_at());
            }
            if let Phase::Down { not_before } = slot.phase()
                && launches
                && slot.position().is_some()
            {
                next = next.min(*not_before);
            }
        }
        if supervisor {
            if !self.terminating.is_empty() {
                next = next.min(self.next_farewell());
            }
            next = next.min(self.leadership.next_time());
        }
        let rebalance_at = self.rebalance_at.filter(|_| rebalance);
        for time in [rebalance_at, self.sweep_at, maintenance] {
            next = next.min(time.unwrap_or(u64::MAX));
        }
        (next < u64::MAX).then_some(next)
    }

    /// When something is due that only the supervisor does, in nanoseconds: workers come and go.
    pub(in crate::engine) fn next_supervisor_timer(&self) -> Option<u64> {
        let launches = self.launches();
        let launches = self.slots.values().filter_map(|slot| match slot.phase() {
            Phase::Down { not_before } if launches && slot.position().is_some() => {
                Some(*not_before)
            }
            Phase::Starting { give_up, process } if !slot.is_killed() => {
                Some(process.asked_at().min(*give_up))
            }
            _ => None,
        });
        let farewell = Some(self.next_farewell()).filter(|&due| due < u64::MAX);
        launches
            .chain(self.next_maintenance())
            .chain(farewell)
            .min()
    }

    /// Whether slots without a worker get one.
    fn launches(&self) -> bool {
        !self.end.has_ended() && self.scheduler.wants_worker()
    }

    /// Does what is due: looks for an imbalance, replaces workers, removes what was cancelled,
    /// checks deadlines, and polls workers that cannot be heard.
    pub(in crate::engine) fn on_time(&mut self) {
        let now = sys::now_ns();
        if self.rebalance_at.is_some_and(|due| due <= now) {
            self.drain_and_dispatch();
            self.dispatch();
        }
        self.on_maintenance(now);
        if self.next_deadline <= now {
            self.on_call_deadline(now);
        }
        if self.scheduler.next_due().is_some_and(|due| due <= now) {
            self.release_due(now);
        }
        if self.sweep_at.is_some_and(|due| due <= now) {
            self.sweep();
            self.dispatch();
        }
        for slot in self.slots.ids() {
            if self.slots[slot]
                .deadline_check_due()
                .is_some_and(|due| due <= now)
            {
                self.check_deadline(slot, now);
                self.pass_on_soon(slot);
            }
            if self.slots[slot].polled_at().is_some_and(|at| at <= now) {
                self.poll_disconnected(slot, now);
            }
        }
        // To look at a deadline is to drain: what was found there may have been the last thing
        // that this pool had to do.
        self.dispatch_if_due();
    }

    /// Whether a worker that is starting has had its time.
    pub(in crate::engine) fn has_silent_worker(&self) -> bool {
        let now = sys::now_ns();
        self.slots.ids().any(|slot| self.is_silent(slot, now))
    }

    /// Kills the workers that have not answered in time. For the supervisor, when it has heard all
    /// that there is to hear: a program that was stopped for a while finds the time over, and the
    /// answer as well.
    pub(in crate::engine) fn kill_silent_workers(&mut self) {
        let now = sys::now_ns();
        let limit = nanoseconds(self.config.launch_timeout);
        for slot in self.slots.ids() {
            if !self.is_silent(slot, now) {
                continue;
            }
            let Some((_, give_up)) = self.slots[slot].starting_mut() else {
                continue;
            };
            match extra_time(*give_up, now, limit) {
                Some(more) => *give_up = now + more,
                None => self.kill(slot, Killed::Silent),
            }
        }
    }

    fn is_silent(&self, slot: SlotId, now: u64) -> bool {
        let slot = &self.slots[slot];
        matches!(slot.phase(), Phase::Starting { give_up, .. } if *give_up <= now)
            && !slot.is_killed()
    }
}
