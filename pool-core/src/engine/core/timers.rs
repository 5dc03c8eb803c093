//! What a pool does because time has passed: deadlines of items and of launches, and the look at
//! an imbalance. The thread that has the lock acts; the supervisor wakes for it.

use super::Core;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::GRACE_NS;
use crate::engine::time_limits::nanoseconds;
use crate::engine::worker_slot::{Killed, Phase};
use crate::error::task_error::TaskError;
use crate::sync::atomic::Ordering;
use crate::sys;
use crate::task::options::Timeout;

impl Core {
    /// When something must be done even if nothing happens, in nanoseconds; `rebalance`: the
    /// look for an imbalance included.
    pub(in crate::engine) fn next_timer(&self, rebalance: bool) -> Option<u64> {
        self.timer(true, rebalance)
    }

    /// The same for the leader, which keeps all times but those of launches and of deaths, which
    /// are the supervisor's.
    pub(in crate::engine) fn next_leader_timer(&self) -> Option<u64> {
        self.timer(false, true)
    }

    fn timer(&self, supervisor: bool, rebalance: bool) -> Option<u64> {
        let care = if supervisor {
            self.next_maintenance()
        } else {
            None
        };
        let launches = supervisor && self.launches();
        // A plain loop: this is asked after every task that is submitted.
        let mut next = self.next_deadline;
        for slot in self.slots.values() {
            if !slot.is_killed() {
                if let Some(deadline) = slot.deadline() {
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
        for time in [self.rebalance_at.filter(|_| rebalance), care] {
            next = next.min(time.unwrap_or(u64::MAX));
        }
        (next < u64::MAX).then_some(next)
    }

    /// When the supervisor alone has something to do, in nanoseconds: workers come and go.
    pub(in crate::engine) fn next_errand(&self) -> Option<u64> {
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

    /// Does what is due: looks for an imbalance, and kills items at their deadline.
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
        for slot in self.slots.ids() {
            if self.slots[slot].deadline().is_some_and(|due| due <= now) {
                self.on_deadline(slot, now);
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
            match respite(*give_up, now, limit) {
                Some(respite) => *give_up = now + respite,
                None => self.kill(slot, Killed::Silent),
            }
        }
    }

    fn is_silent(&self, slot: SlotId, now: u64) -> bool {
        let slot = &self.slots[slot];
        matches!(slot.phase(), Phase::Starting { give_up, .. } if *give_up <= now)
            && !slot.is_killed()
    }

    /// An item of the slot may have had its time.
    fn on_deadline(&mut self, slot: SlotId, now: u64) {
        // What has ended in the meantime needs no killing.
        self.drain_slot(slot);
        let due = self.slots[slot].deadline().unwrap_or(now);
        self.slots[slot].look_next_at(None);
        let Some((_, channel)) = self.slots[slot].up() else {
            return;
        };
        let region = channel.region();
        let begun = region.items_begun();
        let started = &region.words().progress.item_started;
        let started = started.load(Ordering::Relaxed).min(now);
        // The time of an item behind others has not begun: it cannot be over before this.
        let waiting = self.scheduler.in_flight(slot);
        let waiting = waiting.filter_map(|chunk| chunk.timeout).min();
        let limit = waiting.map_or(GRACE_NS, Timeout::as_ns);
        if let Some(respite) = respite(due, now, limit) {
            self.slots[slot].excuse(now - due);
            self.slots[slot].look_next_at(Some(now + respite));
            return;
        }
        if let Some(notice) = self.slots[slot].notice() {
            if self.freeze_running_item(slot) != Some(notice.item) {
                self.slots[slot].heeds_notice();
            } else if notice.due <= now {
                self.kill(slot, notice.why);
                return;
            } else {
                // Nothing else is to be seen to before that: behind it, nothing begins.
                self.slots[slot].look_next_at(Some(notice.due));
                return;
            }
        }
        let mut due = waiting.map(|timeout| now + timeout.as_ns());
        let running = self.scheduler.running_item(slot, begun).and_then(|item| {
            let timeout = self.scheduler.unit_of(slot, item)?.timeout?;
            Some((item, timeout.as_ns()))
        });
        if let Some((item, timeout)) = running {
            let ends = started + timeout;
            if ends <= now && self.freeze_running_item(slot) == Some(item) {
                self.end_item(slot, item, Killed::Deadline);
                return;
            }
            due = Some(due.map_or(ends, |due| due.min(ends)).max(now + 1));
        }
        if let Some(limit) = self.patience(slot) {
            // When an item began may be a lie, and so may be that none did. But a worker cannot
            // go on forever to say that it has begun one more.
            let position = self.scheduler.position(slot, begun);
            let since = self.slots[slot].stands_since(position, now);
            if since + limit <= now {
                self.kill(slot, Killed::Unresponsive);
                return;
            }
            due = Some(due.map_or(since + limit, |due| due.min(since + limit)));
        }
        self.slots[slot].look_next_at(due);
    }

    /// The deadline of a call has come: what waits fails, and what runs is ended, wherever it is.
    fn on_call_deadline(&mut self, now: u64) {
        for slot in self.slots.ids() {
            let in_flight = self.scheduler.in_flight(slot);
            let has_overdue = in_flight.into_iter().any(|chunk| chunk.is_overdue(now));
            if has_overdue {
                // What has not begun goes back into the queue.
                match self.freeze_running_item(slot) {
                    Some(item) if self.is_overdue(slot, item, now) => {
                        self.end_item(slot, item, Killed::CallDeadline);
                    }
                    Some(_) => {}
                    // It says that it runs nothing. Then it will have passed over all this soon.
                    None => self.slots[slot].look_at(now + GRACE_NS),
                }
            }
        }
        for chunk in self.scheduler.extract(|chunk| chunk.is_overdue(now)) {
            self.notify.fail(chunk, TaskError::deadline_exceeded(false));
        }
        let slots = self.slots.ids();
        let in_flight = slots.flat_map(|slot| self.scheduler.in_flight(slot));
        let all = in_flight.chain(self.scheduler.queued());
        let next = all.filter_map(|chunk| chunk.deadline().filter(|&due| due > now));
        self.next_deadline = next.min().unwrap_or(u64::MAX);
        self.dispatch();
    }

    fn is_overdue(&self, slot: SlotId, item: u64, now: u64) -> bool {
        let chunk = self.scheduler.unit_of(slot, item);
        chunk.is_some_and(|chunk| chunk.is_overdue(now))
    }

    /// How long a worker may be without an outcome, in nanoseconds, whatever it says of itself;
    /// `None`: without a limit.
    fn patience(&self, slot: SlotId) -> Option<u64> {
        let Some(chunk) = self.scheduler.in_flight(slot).next() else {
            // It has only to pass over what was taken back.
            return self.scheduler.is_reclaimed(slot).then_some(GRACE_NS);
        };
        if self.scheduler.is_reclaimed(slot) && self.scheduler.frozen_item(slot).is_none() {
            return Some(GRACE_NS);
        }
        Some(chunk.timeout?.as_ns() + GRACE_NS)
    }
}

/// Time in which nobody could run is nobody's: where somebody who keeps the time wakes long after
/// the time that was due, the machine, the container or this process was stopped, and so may the
/// others have been. Then they get as much time as this is late, but no more than they had from the
/// beginning, in nanoseconds. `None`: it is not late.
fn respite(due: u64, now: u64, limit: u64) -> Option<u64> {
    let late = now.saturating_sub(due);
    (late > LATE_NS).then_some(late.min(limit))
}

/// How late is no accident of scheduling any more, in nanoseconds.
const LATE_NS: u64 = 200_000_000;
