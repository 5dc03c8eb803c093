//! Where deadlines are enforced, of items and of calls, and where a worker that does not get ahead
//! is found. See "Deadlines of items" in `../README.md`.

use super::Core;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::{GRACE_NS, extra_time};
use crate::engine::worker_slot::Killed;
use crate::error::task_error::TaskError;
use crate::sync::atomic::Ordering;
use crate::task::chunk::Chunk;
use crate::task::options::Timeout;

impl Core {
    /// An item of the slot may have had its time: ends it then, or sets the next look.
    pub(super) fn check_deadline(&mut self, slot: SlotId, now: u64) {
        // What has ended in the meantime needs no killing.
        self.drain_slot(slot);
        let due = self.slots[slot].deadline_check_due().unwrap_or(now);
        self.slots[slot].check_deadline_next_at(None);
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
        if let Some(more) = extra_time(due, now, limit) {
            self.slots[slot].excuse(now - due);
            self.slots[slot].check_deadline_next_at(Some(now + more));
            return;
        }
        if let Some(notice) = self.slots[slot].notice() {
            if self.freeze_running_item(slot) != Some(notice.item) {
                self.slots[slot].drop_notice();
            } else if notice.due <= now {
                self.kill(slot, notice.why);
                return;
            } else {
                // Nothing else is to be seen to before that: behind it, nothing begins.
                self.slots[slot].check_deadline_next_at(Some(notice.due));
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
            // When an item began, or that none did, is the worker's word, and may be false. But it
            // cannot say forever that it has begun one more.
            let position = self.scheduler.position(slot, begun);
            let since = self.slots[slot].stalled_since(position, now);
            if since + limit <= now {
                self.kill(slot, Killed::Unresponsive);
                return;
            }
            due = Some(due.map_or(since + limit, |due| due.min(since + limit)));
        }
        self.slots[slot].check_deadline_next_at(due);
    }

    /// The deadline of a call has come: what waits fails, and what runs is ended, wherever it is.
    pub(super) fn on_call_deadline(&mut self, now: u64) {
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
                    None => self.slots[slot].check_deadline_by(now + GRACE_NS),
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

    /// Ends the item that a slot's worker runs and beyond which it begins nothing: by a kill, or
    /// first by asking it, if its call says so.
    fn end_item(&mut self, slot: SlotId, item: u64, why: Killed) {
        let chunk = self.scheduler.unit_of(slot, item);
        match chunk.and_then(Chunk::grace_ns) {
            Some(grace) => self.give_notice(slot, item, why, grace),
            None => self.kill(slot, why),
        }
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
