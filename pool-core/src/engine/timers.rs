//! What a pool does because time has passed: deadlines of items and of launches, and the look at
//! an imbalance. Whoever has the lock acts; the supervisor wakes for it.

use std::sync::atomic::Ordering;

use super::core::{Core, End, nanoseconds};
use super::slot::{Killed, Phase};
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

    /// The time is over that the slot's item may have had, if it began when it was sent.
    fn on_deadline(&mut self, slot: usize, now: u64) {
        // What has ended in the meantime needs no killing.
        self.pump_slot(slot);
        self.slots[slot].deadline = None;
        let Phase::Up { wire, .. } = &self.slots[slot].phase else {
            return;
        };
        // If the item with the deadline is behind others, its time has not begun: look again
        // when it can be over at the earliest.
        let Some(timeout) = self
            .scheduler
            .flights(slot)
            .find_map(|work| work.chunk.timeout)
            .map(nanoseconds)
        else {
            self.slots[slot].overdue = None;
            return;
        };
        let region = wire.region();
        let running = self
            .scheduler
            .running_item(slot, region.items_begun())
            .filter(|_| {
                self.scheduler
                    .current(slot)
                    .is_some_and(|flight| flight.load.chunk.timeout.is_some())
            });
        let started = &region.words().progress.item_started;
        let due = match running {
            Some(_) => started.load(Ordering::Relaxed).min(now) + timeout,
            None => now.saturating_add(timeout),
        };
        // A worker may lie about when it began, but not about having run this item for the whole
        // timeout since we last looked.
        let seen_before = running.is_some() && self.slots[slot].overdue == running;
        self.slots[slot].overdue = running;
        if running.is_some() && (due <= now || seen_before) && self.corner(slot) == running {
            self.kill(slot, Killed::Deadline);
        } else {
            self.slots[slot].deadline = Some(due.max(now + 1));
        }
    }
}
