//! Which worker runs what: pure decisions, without input or output, threads or a clock.
//!
//! The scheduler owns every work unit (a chunk of items) from its submission until its last item
//! has an outcome. It decides; the [`Core`](super::core::Core) acts and reports back what happened.

mod balance;
mod delayed;
mod pinned;
#[cfg(test)]
mod tests;
mod worker_queue;

use std::collections::VecDeque;

use self::delayed::Delayed;
use self::pinned::Pinned;
use self::worker_queue::WorkerQueue;

use super::slot_id::{PerSlot, SlotId};
use super::work_unit::{Done, InFlight, Salvaged, WorkUnit};
use crate::observe::worker_exit::ExitReason;

/// How long a worker is at the same item before what waits behind it is taken back for an idle
/// worker, in nanoseconds. Below that, the interruption costs more than the waiting.
const STUCK_NS: u64 = 300_000;
/// With this many units a worker does not run dry while a few more are collected: only one that
/// takes little time for each gets this many.
const WELL_FED: usize = 4;

/// See the module.
pub(crate) struct Scheduler<U: WorkUnit> {
    /// By priority, the highest first.
    queue: VecDeque<U>,
    /// What only one worker may take.
    pinned: Pinned<U>,
    /// What is not to begin yet.
    delayed: Delayed<U>,
    /// The position that each slot's worker is in.
    serves: PerSlot<Option<usize>>,
    queues: PerSlot<WorkerQueue<U>>,
    /// Idle queues, the one that worked last at the end: it may still be awake.
    idle: Vec<SlotId>,
    /// How many queues have in_flight.
    busy: usize,
    /// The worker that was handed something last.
    latest: SlotId,
    max_tasks: Option<u64>,
    closing: bool,
    /// Units have, or had, a priority other than 0.
    has_priorities: bool,
}

/// The answer of [`Scheduler::imbalance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Imbalance {
    /// Take back what waits in this worker.
    TakeBack(SlotId),
    /// Look again at this time, in nanoseconds.
    AskAgain(u64),
}

impl<U: WorkUnit> Scheduler<U> {
    pub(crate) fn new(queues: usize, max_tasks: Option<u64>) -> Self {
        Self {
            queue: VecDeque::new(),
            pinned: Pinned::new(queues),
            delayed: Delayed::new(),
            serves: (0..queues).map(Some).collect(),
            queues: (0..queues).map(|_| WorkerQueue::new()).collect(),
            idle: Vec::new(),
            busy: 0,
            latest: SlotId::new(0),
            max_tasks,
            closing: false,
            has_priorities: false,
        }
    }

    /// A new unit, behind all others of its priority.
    pub(crate) fn submit(&mut self, unit: U) {
        if let Some(unit) = self.pinned.push_back(unit) {
            self.enqueue_last(unit);
        }
    }

    /// The same of one for any worker, where there are no priorities.
    #[inline]
    pub(crate) fn enqueue(&mut self, unit: U) {
        debug_assert!(unit.position().is_none() && !self.has_priorities);
        self.queue.push_back(unit);
    }

    fn enqueue_last(&mut self, unit: U) {
        let priority = unit.priority();
        self.has_priorities |= priority != 0;
        if self.has_priorities {
            let at = self.queue.partition_point(|it| it.priority() >= priority);
            self.queue.insert(at, unit);
        } else {
            self.queue.push_back(unit);
        }
    }

    /// A unit that was handed out before, ahead of all others of its priority.
    pub(crate) fn resubmit(&mut self, unit: U) {
        if let Some(unit) = self.pinned.push_front(unit) {
            self.enqueue_first(unit);
        }
    }

    /// A unit that is not to begin before this time, in nanoseconds.
    pub(crate) fn delay(&mut self, unit: U, due: u64) {
        self.delayed.push(unit, due);
    }

    /// When the next unit may begin that was not to begin yet.
    #[inline]
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.delayed.next_due()
    }

    /// Takes the units whose time has come, the first one first.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<U> {
        std::iter::from_fn(|| self.delayed.pop(now)).collect()
    }

    /// Takes the units out that are not to begin yet and for which `take` says so.
    pub(crate) fn extract_delayed(&mut self, take: impl Fn(&U) -> bool) -> Vec<U> {
        self.delayed.extract(take)
    }

    fn enqueue_first(&mut self, unit: U) {
        let priority = unit.priority();
        // It may be new here: it had waited for one worker until now, or for its time.
        self.has_priorities |= priority != 0;
        if self.has_priorities {
            let at = self.queue.partition_point(|it| it.priority() > priority);
            self.queue.insert(at, unit);
        } else {
            self.queue.push_front(unit);
        }
    }

    /// The next worker of this slot is one of this position.
    pub(crate) fn serve(&mut self, slot: SlotId, position: usize) {
        self.serves[slot] = Some(position);
    }

    /// There is to be a worker in this position.
    pub(crate) fn open_position(&mut self, position: usize) {
        self.pinned.open(position);
    }

    /// There will be no worker in this position: any other one may take what waits for it.
    pub(crate) fn close_position(&mut self, position: usize) {
        let waiting = self.pinned.close(position);
        for unit in waiting {
            self.enqueue_last(unit);
        }
    }

    /// Whether something waits for certain workers.
    pub(crate) fn has_pinned(&self) -> bool {
        !self.pinned.is_empty()
    }

    /// Whether something waits for this position's worker.
    pub(crate) fn is_wanted(&self, position: usize) -> bool {
        self.pinned.has(Some(position))
    }

    /// Whether units have, or had, priorities.
    #[inline]
    pub(crate) fn has_priorities(&self) -> bool {
        self.has_priorities
    }

    /// The workers that have something of a lower priority waiting, if no worker can begin a unit
    /// of this one at once.
    pub(crate) fn outranked(&self, priority: i32) -> Vec<SlotId> {
        let is_ranked = self.has_priorities || priority != 0;
        if !is_ranked || self.idle.iter().any(|&slot| self.queues[slot].may_take()) {
            return Vec::new();
        }
        let outranked = self.queues.iter().filter(|(_, worker)| {
            let last = worker.in_flight.back();
            worker.may_give()
                && !worker.has_only_pinned()
                && last.is_some_and(|it| it.unit.priority() < priority)
        });
        outranked.map(|(slot, _)| slot).collect()
    }

    /// There will be no new units.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// A worker is up.
    pub(crate) fn up(&mut self, slot: SlotId) {
        self.queues[slot].up(self.max_tasks);
        self.idle.push(slot);
    }

    /// There is one more worker.
    pub(crate) fn add_worker(&mut self) {
        self.queues.push(WorkerQueue::new());
        self.serves.push(None);
    }

    /// The worker that came up gets nothing before it is released.
    pub(crate) fn reserve(&mut self, slot: SlotId) {
        self.queues[slot].reserve();
    }

    /// The worker may work, if it is up.
    pub(crate) fn release(&mut self, slot: SlotId) {
        self.queues[slot].release();
    }

    /// The worker gets nothing more, and is to go when it has nothing to do. Says whether it has
    /// something that should be taken back for that.
    pub(crate) fn dismiss(&mut self, slot: SlotId) -> bool {
        self.queues[slot].dismiss()
    }

    /// Whether a worker gets nothing more because it has had all that it may.
    pub(crate) fn is_used_up(&self, slot: SlotId) -> bool {
        self.queues[slot].is_used_up()
    }

    /// Puts a unit into a worker that is not a task but must come before the first: the
    /// initializer. The worker takes nothing else before it has finished.
    pub(crate) fn prepare(&mut self, slot: SlotId, unit: U) {
        let worker = &mut self.queues[slot];
        worker.prepare();
        if let Some(tasks) = &mut worker.tasks_left {
            *tasks += 1;
        }
        self.hand(slot, unit);
    }

    /// Chooses a worker for the next unit and moves it there, at the end of the worker's
    /// in_flight. Units that are not to begin any more go into `refused` instead.
    pub(crate) fn assign(&mut self, refused: &mut Vec<U>) -> Option<SlotId> {
        while self.queue.front().is_some_and(WorkUnit::is_refused) {
            refused.extend(self.queue.pop_front());
        }
        if !self.pinned.is_empty()
            && let Some(slot) = self.assign_pinned(refused)
        {
            return Some(slot);
        }
        if self.queue.is_empty() {
            return None;
        }
        let slot = self.choose()?;
        let unit = self.next_queued()?;
        self.hand(slot, unit);
        Some(slot)
    }

    /// The same of what only one worker may take: it gets that when it has nothing else, so that
    /// nothing of it is taken back for others. Then it is the turn of what any worker may take.
    fn assign_pinned(&mut self, refused: &mut Vec<U>) -> Option<SlotId> {
        for at in (0..self.idle.len()).rev() {
            let slot = self.idle[at];
            let worker = &self.queues[slot];
            let is_its_turn = !worker.had_pinned || self.queue.is_empty();
            if worker.may_take()
                && is_its_turn
                && let Some(unit) = self.pinned.pop(self.serves[slot], refused)
            {
                self.hand(slot, unit);
                self.queues[slot].had_pinned = true;
                return Some(slot);
            }
        }
        None
    }

    /// Whether a worker is kept free for what waits for it alone.
    #[inline]
    fn is_kept(&self, slot: SlotId) -> bool {
        !self.pinned.is_empty()
            && self.pinned.has(self.serves[slot])
            && !self.queues[slot].had_pinned
    }

    fn choose(&mut self) -> Option<SlotId> {
        if let Some(worker) = self.queues.get(self.latest)
            && worker.is_nearly_through()
            && !self.is_kept(self.latest)
        {
            return Some(self.latest);
        }
        if let Some(at) = self
            .idle
            .iter()
            .rposition(|&slot| self.queues[slot].may_take() && !self.is_kept(slot))
        {
            return Some(self.idle[at]);
        }
        // All are busy: the one with the fewest units, if it may have more.
        self.queues
            .iter()
            .filter(|(slot, worker)| {
                worker.may_take()
                    && (worker.in_flight.len() as u64) < worker.credit()
                    && !self.is_kept(*slot)
            })
            .min_by_key(|(_, worker)| worker.in_flight.len())
            .map(|(slot, _)| slot)
    }

    /// Whether the worker that was handed something last has enough of what it is seen to be quick
    /// at.
    pub(crate) fn is_well_fed(&self) -> bool {
        // (What waits in the queue may be urgent.)
        let latest = self.queues.get(self.latest);
        !self.has_priorities
            && latest.is_some_and(|it| it.may_take() && it.in_flight.len() >= WELL_FED)
    }

    /// Takes the first unit out of the queue.
    // In one piece: where it is inlined, the compiler moves it in pieces of odd sizes, and the
    // processor has to wait for these to be written when it is moved on.
    #[inline(never)]
    fn next_queued(&mut self) -> Option<U> {
        self.queue.pop_front()
    }

    fn hand(&mut self, slot: SlotId, unit: U) {
        self.latest = slot;
        let worker = &mut self.queues[slot];
        worker.had_pinned = false;
        if worker.is_idle() {
            worker.stalled_since = None;
            self.busy += 1;
            if self.idle.last() == Some(&slot) {
                self.idle.pop();
            } else {
                self.idle.retain(|&idle| idle != slot);
            }
        }
        if let Some(tasks) = &mut worker.tasks_left {
            *tasks -= 1;
        }
        let first = worker.handed;
        worker.handed += u64::from(unit.count());
        worker.in_flight.push_back(InFlight {
            outcomes: unit.outcomes(),
            unit,
            first,
            done: 0,
        });
    }

    /// What comes next from a worker.
    #[inline]
    pub(crate) fn front(&self, slot: SlotId) -> Option<&InFlight<U>> {
        self.queues[slot].in_flight.front()
    }

    /// The same, to put an outcome there.
    #[inline]
    pub(crate) fn front_flight_mut(&mut self, slot: SlotId) -> Option<&mut InFlight<U>> {
        self.queues[slot].in_flight.front_mut()
    }

    /// The unit that has the first item of the worker without an outcome.
    pub(crate) fn next_mut(&mut self, slot: SlotId) -> Option<&mut U> {
        let mut in_flight = self.queues[slot].in_flight.iter_mut();
        Some(&mut in_flight.find(|flight| !flight.is_done())?.unit)
    }

    /// The unit that was handed to a worker last, for a change before it is sent.
    pub(crate) fn newest_mut(&mut self, slot: SlotId) -> Option<&mut U> {
        Some(&mut self.queues[slot].in_flight.back_mut()?.unit)
    }

    /// The unit that was handed to a worker last.
    pub(crate) fn newest(&self, slot: SlotId) -> Option<&U> {
        self.queues[slot]
            .in_flight
            .back()
            .map(|flight| &flight.unit)
    }

    /// How many items a worker was handed, ever.
    pub(crate) fn handed(&self, slot: SlotId) -> u64 {
        self.queues[slot].handed
    }

    /// All units of a worker, in order.
    pub(crate) fn in_flight(&self, slot: SlotId) -> impl Iterator<Item = &U> {
        self.queues[slot]
            .in_flight
            .iter()
            .map(|flight| &flight.unit)
    }

    /// The number, counted from 1, of the item that a worker runs, if it runs one, given
    /// that of the last that it began. Items before that have ended, though their outcomes may
    /// not be known yet.
    pub(crate) fn running_item(&self, slot: SlotId, begun: u64) -> Option<u64> {
        let worker = &self.queues[slot];
        let flight = worker.in_flight.iter().find(|flight| !flight.is_done())?;
        let next = flight.next_item();
        (begun >= next).then(|| begun.min(worker.handed))
    }

    /// The same where what had not begun was taken back.
    pub(crate) fn frozen_item(&self, slot: SlotId) -> Option<u64> {
        self.running_item(slot, self.queues[slot].last_allowed())
    }

    /// The unit that a worker's item with this number belongs to.
    pub(crate) fn unit_of(&self, slot: SlotId, number: u64) -> Option<&U> {
        let mut in_flight = self.queues[slot].in_flight.iter();
        let flight = in_flight.find(|it| number <= it.first + u64::from(it.unit.count()))?;
        (number > flight.first).then_some(&flight.unit)
    }

    /// The unit that a worker's item with this number belongs to, and its place there, counted from
    /// 0.
    pub(crate) fn place_of(&self, slot: SlotId, number: u64) -> Option<(&U, u32)> {
        let unit = self.unit_of(slot, number)?;
        let mut in_flight = self.queues[slot].in_flight.iter();
        let flight = in_flight.find(|it| std::ptr::eq(&raw const it.unit, unit))?;
        Some((unit, (number - flight.first - 1) as u32))
    }

    /// How many items a worker has behind the one with this number.
    pub(crate) fn items_behind(&self, slot: SlotId, number: u64) -> u64 {
        let behind = |flight: &InFlight<U>| {
            let end = flight.first + u64::from(flight.unit.count());
            end.saturating_sub(number.max(flight.first))
        };
        self.queues[slot].in_flight.iter().map(behind).sum()
    }

    /// The next item of the worker's current unit has an outcome: gives the unit, and where that
    /// goes. `None`: it has no open item, so the worker writes nonsense.
    #[inline]
    pub(crate) fn item_done(&mut self, slot: SlotId) -> Option<(&mut U, &mut U::Outcomes)> {
        let flight = self.queues[slot].in_flight.front_mut()?;
        if flight.is_done() {
            return None;
        }
        flight.done += 1;
        Some((&mut flight.unit, &mut flight.outcomes))
    }

    /// This many items of the worker's current unit, which has them, have outcomes.
    pub(crate) fn items_done(&mut self, slot: SlotId, count: u32) {
        if let Some(flight) = self.queues[slot].in_flight.front_mut() {
            flight.done += count;
        }
    }

    /// The worker has finished its current unit, after this many nanoseconds. `None`: it
    /// is not, so the worker writes nonsense.
    pub(crate) fn unit_done(&mut self, slot: SlotId, took_ns: u64) -> Option<InFlight<U>> {
        let worker = &mut self.queues[slot];
        if !worker.in_flight.front().is_some_and(InFlight::is_done) {
            return None;
        }
        let flight = worker.take_first()?;
        if worker.has_finished() {
            // It says nothing about how long tasks take.
        } else if worker.unit_ns == 0 {
            worker.unit_ns = took_ns.max(1);
        } else {
            worker.unit_ns = (worker.unit_ns - worker.unit_ns / 8)
                .saturating_add(took_ns / 8)
                .max(1);
        }
        if worker.is_idle() {
            self.busy -= 1;
            self.idle.push(slot);
        }
        Some(flight)
    }

    /// The worker was seen to get ahead.
    pub(crate) fn progressed(&mut self, slot: SlotId) {
        self.queues[slot].stalled_since = None;
    }

    /// The unit that was handed to this worker last waits for space in its ring.
    pub(crate) fn choke(&mut self, slot: SlotId) {
        self.queues[slot].choke();
    }

    /// All that was handed to this worker is in its ring.
    pub(crate) fn unchoke(&mut self, slot: SlotId) {
        self.queues[slot].unchoke();
    }

    /// This worker is dead or as good as dead: it gets nothing more, and what it has comes
    /// back when it is down.
    pub(crate) fn give_up(&mut self, slot: SlotId) {
        self.queues[slot].give_up();
    }

    /// A worker that should go now: it has used up its tasks, or there is no more work, unless
    /// there is some `to_come`.
    pub(crate) fn superfluous(&self, to_come: bool) -> Option<SlotId> {
        let over = self.closing && !to_come && !self.has_work();
        self.queues.find(|worker| worker.is_superfluous(over))
    }

    /// Why a worker should go.
    pub(crate) fn reason_to_go(&self, slot: SlotId) -> ExitReason {
        if self.queues[slot].is_used_up() {
            ExitReason::MaxTasks
        } else {
            ExitReason::Closed
        }
    }

    /// The worker was retired.
    pub(crate) fn retiring(&mut self, slot: SlotId) {
        self.queues[slot].retire();
        self.idle.retain(|&idle| idle != slot);
        // It keeps out of `idle`; `busy` counts queues with in_flight only, and it has none.
    }

    /// The worker died when it had begun this many items. Its waiting items go back to the head of
    /// the queue; the rest is for the caller.
    pub(crate) fn down(&mut self, slot: SlotId, begun: u64) -> Salvaged<U> {
        let mut salvaged = Salvaged {
            finished: Vec::new(),
            lost: None,
        };
        let worker = &mut self.queues[slot];
        if !worker.is_idle() {
            self.busy -= 1;
        }
        self.idle.retain(|&idle| idle != slot);
        let mut back = Vec::new();
        for flight in std::mem::replace(worker, WorkerQueue::new()).in_flight {
            let InFlight {
                unit,
                outcomes,
                first,
                done,
            } = flight;
            let (unit, rest) = unit.split(done);
            salvaged.finished.push(Done { unit, outcomes });
            if rest.count() == 0 {
                continue;
            }
            if salvaged.lost.is_none() && back.is_empty() && begun > first + u64::from(done) {
                let (lost, rest) = rest.split(1);
                salvaged.lost = Some(lost);
                if rest.count() > 0 {
                    back.push(rest);
                }
            } else {
                back.push(rest);
            }
        }
        for unit in back.into_iter().rev() {
            self.resubmit(unit);
        }
        salvaged
    }

    /// Whether a slot without a worker needs one.
    pub(crate) fn wants_worker(&self) -> bool {
        !self.closing || self.has_work()
    }

    /// Whether there is something that was not handed out.
    fn has_work(&self) -> bool {
        self.has_queued() || !self.delayed.is_empty()
    }

    /// Everything that was not handed out.
    pub(crate) fn drain_queue(&mut self) -> impl Iterator<Item = U> + use<U> {
        let pinned = self.pinned.extract(|_| true);
        let delayed = self.delayed.extract(|_| true);
        let queue = std::mem::take(&mut self.queue);
        queue.into_iter().chain(pinned).chain(delayed)
    }

    /// The units that were not handed out.
    pub(crate) fn queued(&self) -> impl Iterator<Item = &U> {
        self.waiting().chain(self.delayed.iter())
    }

    /// Those of them that may begin.
    fn waiting(&self) -> impl Iterator<Item = &U> {
        self.queue.iter().chain(self.pinned.iter())
    }

    /// Whether there are any of these.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty() || !self.pinned.is_empty()
    }

    /// How many units were not handed out.
    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len() + self.pinned.len() + self.delayed.len()
    }

    /// Takes the units out of the queue for which `take` says so.
    pub(crate) fn extract(&mut self, take: impl Fn(&U) -> bool) -> Vec<U> {
        let mut apart = self.pinned.extract(&take);
        apart.append(&mut self.delayed.extract(&take));
        // The units of one call are neighbours, as a rule: a look is cheaper than a move of all.
        let first = self.queue.iter().position(&take);
        let last = self.queue.iter().rposition(&take);
        let (Some(first), Some(last)) = (first, last) else {
            return apart;
        };
        let (mut taken, kept): (Vec<U>, Vec<U>) = self.queue.drain(first..=last).partition(take);
        if !kept.is_empty() {
            let mut behind = self.queue.split_off(first);
            self.queue.extend(kept);
            self.queue.append(&mut behind);
        }
        taken.append(&mut apart);
        taken
    }

    /// How far a worker is, given the number of the last item that it began by its own
    /// word.
    pub(crate) fn position(&self, slot: SlotId, begun: u64) -> u64 {
        let worker = &self.queues[slot];
        let front = worker.in_flight.front();
        let known = front.map_or(worker.handed, |flight| {
            flight.first + u64::from(flight.done)
        });
        known.max(begun.min(worker.handed))
    }

    /// Whether there are more items than this that run or may begin.
    pub(crate) fn has_more_than(&self, count: usize) -> bool {
        let queues = self.queues.values().filter(|worker| !worker.is_preparing());
        let in_flight = queues.flat_map(|worker| &worker.in_flight);
        let open = in_flight.map(|flight| flight.open());
        let mut items = open.chain(self.waiting().map(WorkUnit::count));
        let mut left = count as u64;
        items.any(|items| {
            let is_more = u64::from(items) > left;
            left = left.saturating_sub(u64::from(items));
            is_more
        })
    }

    /// How many queues have work.
    pub(crate) fn busy(&self) -> usize {
        self.busy
    }

    /// Whether a worker has work.
    pub(crate) fn is_busy(&self, slot: SlotId) -> bool {
        !self.queues[slot].is_idle()
    }

    /// Whether a worker was retired.
    pub(crate) fn is_retiring(&self, slot: SlotId) -> bool {
        self.queues[slot].is_retiring()
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_work() && self.busy == 0
    }

    /// How many items a worker was handed that have no outcome yet.
    pub(crate) fn open_in(&self, slot: SlotId) -> u64 {
        let in_flight = self.queues[slot].in_flight.iter();
        let counted = in_flight.filter(|flight| flight.unit.is_counted());
        counted.map(|flight| u64::from(flight.open())).sum()
    }

    /// How many items were handed out and have not ended: those of a unit end together, also those
    /// whose outcomes are here before the others'.
    pub(crate) fn running(&self) -> u64 {
        let queues = self.queues.ids().map(|slot| &self.queues[slot]);
        let in_flight = queues.flat_map(|queue| queue.in_flight.iter());
        let counted = in_flight.filter(|flight| flight.unit.is_counted());
        counted.map(|flight| u64::from(flight.unit.count())).sum()
    }
}
