//! What a pool does because time has passed: deadlines of items and of launches, and the look at
//! an imbalance. Whoever has the lock acts; the supervisor wakes for it.

use super::core::{Core, End};
use super::slot::{Killed, Phase};
use crate::sync::atomic::Ordering;
use crate::sys;

impl Core {
    /// When something must be done even if nothing happens, in nanoseconds; `rebalance`: the
    /// look for an imbalance included.
    pub(super) fn next_timer(&self, rebalance: bool) -> Option<u64> {
        let ended = matches!(self.end, End::Ended(_));
        self.slots
            .iter()
            .flat_map(|slot| {
                let launch = match &slot.phase {
                    Phase::Down { not_before } if !ended && self.scheduler.wants_worker() => {
                        Some(*not_before)
                    }
                    Phase::Starting { give_up, .. } if slot.killed.is_none() => Some(*give_up),
                    _ => None,
                };
                [launch, slot.deadline.filter(|_| slot.killed.is_none())]
            })
            .flatten()
            .chain(self.rebalance_at.filter(|_| rebalance))
            .min()
    }

    /// Does what is due: looks for an imbalance, kills items at their deadline and workers that never answered.
    pub(super) fn on_time(&mut self) {
        let now = sys::now_ns();
        if self.rebalance_at.is_some_and(|due| due <= now) {
            self.pump();
            self.dispatch();
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].deadline.is_some_and(|due| due <= now) {
                self.on_deadline(slot, now);
            }
            if let Phase::Starting { give_up, .. } = self.slots[slot].phase
                && give_up <= now
                && self.slots[slot].killed.is_none()
            {
                self.kill(slot, Killed::Silent);
            }
        }
    }

    /// An item of the slot may have had its time.
    fn on_deadline(&mut self, slot: usize, now: u64) {
        // What has ended in the meantime needs no killing.
        self.pump_slot(slot);
        self.slots[slot].deadline = None;
        let Phase::Up { wire, .. } = &self.slots[slot].phase else {
            return;
        };
        let region = wire.region();
        let running = self.scheduler.running_item(slot, region.items_begun());
        let running = running.and_then(|item| {
            let timeout = self.scheduler.load_of(slot, item)?.timeout?;
            Some((item, timeout.as_ns()))
        });
        // The time of an item behind others has not begun: it cannot be over before this.
        let waiting = self.scheduler.flights(slot);
        let waiting = waiting.filter_map(|chunk| chunk.timeout).min();
        let mut due = waiting.map(|timeout| now + timeout.as_ns());
        if let Some((item, timeout)) = running {
            let started = &region.words().progress.item_started;
            let mut ends = started.load(Ordering::Relaxed).min(now) + timeout;
            // A worker may lie about when it began, but not about having run this item since we
            // saw it do so first.
            match self.slots[slot].overdue {
                Some((seen, since)) if seen == item => ends = ends.min(since + timeout),
                _ => self.slots[slot].overdue = Some((item, now)),
            }
            if ends <= now && self.corner(slot) == Some(item) {
                self.kill(slot, Killed::Deadline);
                return;
            }
            due = Some(due.map_or(ends, |due| due.min(ends)).max(now + 1));
        }
        self.slots[slot].deadline = due;
    }
}
