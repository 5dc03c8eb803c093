//! What was handed out and has not begun goes to a worker that has nothing to do.

use super::worker_queue::CREDIT_NS;
use super::{Imbalance, STUCK_NS, Scheduler};
use crate::engine::slot_id::SlotId;
use crate::engine::work_unit::{InFlight, WorkUnit};

impl<U: WorkUnit> Scheduler<U> {
    /// Whether a worker has nothing to do, and nothing waits for it.
    pub(crate) fn has_room_for_work(&self) -> bool {
        self.queue.is_empty() && self.idle.iter().any(|&slot| self.queues[slot].may_take())
    }

    /// Whether a worker has nothing to do while items wait behind others: then the worker whose
    /// waiting items should be taken back, or the time at which to ask again. The clock, in
    /// nanoseconds, is asked only where it matters: it costs as much as a small item does.
    pub(crate) fn imbalance(&mut self, clock: impl Fn() -> u64) -> Option<Imbalance> {
        if self.busy == 0
            || !self.queue.is_empty()
            || !self.idle.iter().any(|&slot| self.queues[slot].may_take())
        {
            return None;
        }
        let mut now = None;
        let mut first: Option<(u64, SlotId)> = None;
        for (slot, worker) in self.queues.iter_mut() {
            if !worker.may_give() || worker.has_only_pinned() {
                continue;
            }
            if worker.unit_ns.saturating_mul(worker.in_flight.len() as u64) > CREDIT_NS {
                // It is known to take long.
                return Some(Imbalance::TakeBack(slot));
            }
            let now = *now.get_or_insert_with(&clock);
            let when = *worker.stalled_since.get_or_insert(now) + STUCK_NS;
            if first.is_none_or(|(earliest, _)| when < earliest) {
                first = Some((when, slot));
            }
        }
        let (when, slot) = first?;
        Some(if when <= now? {
            Imbalance::TakeBack(slot)
        } else {
            Imbalance::AskAgain(when)
        })
    }

    /// All items of a worker that were not begun, when `begun` items had been, were taken back from
    /// its worker: they go to the head of the queue, in order, in shares for every idle worker.
    pub(crate) fn reclaimed_up_to(&mut self, slot: SlotId, begun: u64) {
        let worker = &mut self.queues[slot];
        worker.begin_reclaim(begun);
        let mut back = Vec::new();
        for flight in std::mem::take(&mut worker.in_flight) {
            let count = flight.unit.count();
            let kept = begun
                .saturating_sub(flight.first)
                .clamp(u64::from(flight.done), u64::from(count)) as u32;
            let InFlight {
                unit,
                outcomes,
                first,
                done,
            } = flight;
            // (What had been taken back before has been counted before.)
            if kept == 0
                && count > 0
                && let Some(tasks) = &mut worker.tasks_left
            {
                *tasks += 1;
            }
            let (unit, rest) = if kept < count {
                let (unit, rest) = unit.split(kept);
                (unit, Some(rest))
            } else {
                (unit, None)
            };
            // An empty unit stays: the worker still says when it is past it.
            worker.in_flight.push_back(InFlight {
                unit,
                outcomes,
                first,
                done,
            });
            back.extend(rest);
        }
        let idle = self.idle.len().max(1) as u32;
        for unit in back.into_iter().rev() {
            if unit.position().is_some() {
                self.resubmit(unit);
                continue;
            }
            let shares = idle.min(unit.count()).max(1);
            let size = unit.count().div_ceil(shares);
            let mut rest = Some(unit);
            let mut shared = Vec::new();
            while let Some(unit) = rest.take() {
                if unit.count() > size {
                    let (share, after) = unit.split(size);
                    shared.push(share);
                    rest = Some(after);
                } else {
                    shared.push(unit);
                }
            }
            for share in shared.into_iter().rev() {
                self.resubmit(share);
            }
        }
    }

    /// The worker has passed over all that was taken back.
    pub(crate) fn finish_reclaim(&mut self, slot: SlotId) {
        self.queues[slot].finish_reclaim();
    }

    pub(crate) fn is_reclaimed(&self, slot: SlotId) -> bool {
        self.queues[slot].is_passing()
    }
}
