//! Who runs what: pure decisions, without input or output, threads or a clock.
//!
//! The scheduler owns every load (a chunk of items) from its submission until its last item has
//! an outcome. It decides; the [`Core`](super::core::Core) acts and reports back what happened.

use std::collections::VecDeque;

use super::load::{Done, Flight, Load, Remains};
use crate::observe::worker_exit::EndReason;

/// How much work, in nanoseconds, a worker may have waiting for it: enough that it does not run
/// dry while the parent does something else, little enough to be taken back cheaply.
const CREDIT_NS: u64 = 400_000;
/// How long a worker is at the same item before what waits behind it is taken back for an idle
/// worker, in nanoseconds. Below that, the interruption costs more than the waiting.
const STUCK_NS: u64 = 300_000;
/// What it costs to wake a worker, in nanoseconds.
const WAKE_NS: u64 = 20_000;
/// With so many loads a worker does not run dry while a few more are collected: only one that takes
/// little time for each gets so many.
const WELL_FED: usize = 4;
/// The most loads that a worker may have at a time.
const MAX_FLIGHTS: u64 = 256;

/// What the scheduler knows of one slot's worker.
struct Lane<L: Load> {
    state: LaneState,
    flights: VecDeque<Flight<L>>,
    /// Items handed to this worker, ever.
    handed: u64,
    /// How many more loads it may get before it is replaced.
    tasks_left: Option<u64>,
    /// Some of what it was handed was taken back, and it has not passed over all of that yet.
    revoked: bool,
    /// The number of the last item that it had begun when that was done.
    cut: u64,
    /// It runs what must come before its first task.
    preparing: bool,
    /// It cannot take more now: the last load is not wholly in its ring.
    choked: bool,
    /// Its worker is dead or as good as dead.
    doomed: bool,
    /// Its worker waits for another one to go.
    reserved: bool,
    /// Its worker is to go when it is through with what it runs.
    dismissed: bool,
    /// Smoothed time that one load takes it, in nanoseconds; 0 until measured.
    load_ns: u64,
    /// Since when its worker is not known to have got ahead, in nanoseconds; `None`: nobody has
    /// asked for the time since it has.
    stands_since: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    Down,
    Up,
    Retiring,
}

impl<L: Load> Lane<L> {
    fn new() -> Self {
        Self {
            state: LaneState::Down,
            flights: VecDeque::new(),
            handed: 0,
            tasks_left: None,
            revoked: false,
            cut: 0,
            preparing: false,
            choked: false,
            doomed: false,
            reserved: false,
            dismissed: false,
            load_ns: 0,
            stands_since: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    fn may_take(&self) -> bool {
        self.state == LaneState::Up
            && !self.revoked
            && !self.preparing
            && !self.choked
            && !self.doomed
            && !self.reserved
            && !self.dismissed
            && self.tasks_left != Some(0)
    }

    /// Whether it is at work and will have done everything, and one load more, before another
    /// worker could be awake.
    fn is_nearly_through(&self) -> bool {
        let loads = self.flights.len() as u64;
        let done_ns = self.load_ns.saturating_mul(loads + 1);
        self.may_take() && (1..MAX_FLIGHTS).contains(&loads) && (1..=WAKE_NS).contains(&done_ns)
    }

    fn credit(&self) -> u64 {
        let loads = CREDIT_NS.checked_div(self.load_ns);
        loads.map_or(2, |loads| loads.clamp(2, MAX_FLIGHTS))
    }

    /// Whether there are items that have not begun, as far as is known.
    fn is_waiting(&self) -> bool {
        let open = self.flights.iter().find(|flight| !flight.is_done());
        let (Some(open), Some(last)) = (open, self.flights.back()) else {
            return false;
        };
        // The first without an outcome is likely to run; where a look showed that the worker was
        // further on, that is known better.
        let begun = self.cut.max(open.first + u64::from(open.done) + 1);
        last.first + u64::from(last.load.count()) > begun
    }
}

/// See the module.
pub(crate) struct Scheduler<L: Load> {
    queue: VecDeque<L>,
    lanes: Vec<Lane<L>>,
    /// Idle lanes, the one that worked last at the end: it may still be awake.
    idle: Vec<usize>,
    /// How many lanes have flights.
    busy: usize,
    /// The lane that was handed something last.
    latest: usize,
    max_tasks: Option<u64>,
    closing: bool,
}

/// The answer of [`Scheduler::imbalance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Imbalance {
    /// Take back what waits in this lane.
    TakeBack(usize),
    /// Look again at this time, in nanoseconds.
    AskAgain(u64),
}

impl<L: Load> Scheduler<L> {
    pub(crate) fn new(lanes: usize, max_tasks: Option<u64>) -> Self {
        Self {
            queue: VecDeque::new(),
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            idle: Vec::new(),
            busy: 0,
            latest: 0,
            max_tasks,
            closing: false,
        }
    }

    /// A new load, behind all others.
    pub(crate) fn submit(&mut self, load: L) {
        self.queue.push_back(load);
    }

    /// A load that was handed out before, ahead of all others.
    pub(crate) fn resubmit(&mut self, load: L) {
        self.queue.push_front(load);
    }

    /// There will be no new loads.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// A worker is up.
    pub(crate) fn up(&mut self, slot: usize) {
        let lane = &mut self.lanes[slot];
        assert!(
            lane.state == LaneState::Down && lane.is_idle(),
            "a new worker is up"
        );
        *lane = Lane {
            state: LaneState::Up,
            tasks_left: self.max_tasks,
            ..Lane::new()
        };
        self.idle.push(slot);
    }

    /// There is one more lane.
    pub(crate) fn add_lane(&mut self) {
        self.lanes.push(Lane::new());
    }

    /// The worker that came up gets nothing before it is released.
    pub(crate) fn reserve(&mut self, slot: usize) {
        self.lanes[slot].reserved = true;
    }

    /// The worker may work, if it is up.
    pub(crate) fn release(&mut self, slot: usize) {
        self.lanes[slot].reserved = false;
    }

    /// The worker gets nothing more, and is to go when it has nothing to do. Says whether it has
    /// something that should be taken back for that.
    pub(crate) fn dismiss(&mut self, slot: usize) -> bool {
        let lane = &mut self.lanes[slot];
        !std::mem::replace(&mut lane.dismissed, true) && !lane.revoked && lane.is_waiting()
    }

    /// Whether a worker gets nothing more because it has had all that it may.
    pub(crate) fn is_used_up(&self, slot: usize) -> bool {
        self.lanes[slot].tasks_left == Some(0)
    }

    /// Puts a load into a lane that is not a task but must come before the first: the
    /// initializer. The lane takes nothing else before it is through.
    pub(crate) fn prepare(&mut self, slot: usize, load: L) {
        let lane = &mut self.lanes[slot];
        lane.preparing = true;
        if let Some(tasks) = &mut lane.tasks_left {
            *tasks += 1;
        }
        self.hand(slot, load);
    }

    /// Chooses a lane for the next load and moves it there, at the end of the lane's
    /// flights. Loads that nobody wants any more go into `abandoned` instead.
    pub(crate) fn assign(&mut self, abandoned: &mut Vec<L>) -> Option<usize> {
        while self.queue.front().is_some_and(Load::is_abandoned) {
            abandoned.extend(self.queue.pop_front());
        }
        if self.queue.is_empty() {
            return None;
        }
        let slot = self.choose()?;
        let load = self.queue.pop_front()?;
        self.hand(slot, load);
        Some(slot)
    }

    fn choose(&mut self) -> Option<usize> {
        if let Some(lane) = self.lanes.get(self.latest)
            && lane.is_nearly_through()
        {
            return Some(self.latest);
        }
        if let Some(at) = self
            .idle
            .iter()
            .rposition(|&slot| self.lanes[slot].may_take())
        {
            return Some(self.idle[at]);
        }
        // All are busy: the one with the fewest loads, if it may have more.
        self.lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.may_take() && (lane.flights.len() as u64) < lane.credit())
            .min_by_key(|(_, lane)| lane.flights.len())
            .map(|(slot, _)| slot)
    }

    /// Whether the lane that was handed something last has enough of what it is seen to be quick at.
    pub(crate) fn is_well_fed(&self) -> bool {
        self.lanes
            .get(self.latest)
            .is_some_and(|lane| lane.may_take() && lane.flights.len() >= WELL_FED)
    }

    fn hand(&mut self, slot: usize, load: L) {
        self.latest = slot;
        let lane = &mut self.lanes[slot];
        if lane.is_idle() {
            lane.stands_since = None;
            self.busy += 1;
            if self.idle.last() == Some(&slot) {
                self.idle.pop();
            } else {
                self.idle.retain(|&idle| idle != slot);
            }
        }
        if let Some(tasks) = &mut lane.tasks_left {
            *tasks -= 1;
        }
        let first = lane.handed;
        lane.handed += u64::from(load.count());
        lane.flights.push_back(Flight {
            outcomes: load.outcomes(),
            load,
            first,
            done: 0,
        });
    }

    /// Where the next outcome of a lane goes.
    pub(crate) fn outcomes_mut(&mut self, slot: usize) -> Option<&mut L::Outcomes> {
        let flight = self.lanes[slot].flights.front_mut();
        flight.map(|flight| &mut flight.outcomes)
    }

    /// The load whose outcomes come next from a lane.
    pub(crate) fn front_mut(&mut self, slot: usize) -> Option<&mut L> {
        Some(&mut self.lanes[slot].flights.front_mut()?.load)
    }

    /// The load that has the first item of the lane without an outcome.
    pub(crate) fn next_mut(&mut self, slot: usize) -> Option<&mut L> {
        let mut flights = self.lanes[slot].flights.iter_mut();
        Some(&mut flights.find(|flight| !flight.is_done())?.load)
    }

    /// The load that was handed to a lane last, for who changes it before it is sent.
    pub(crate) fn newest_mut(&mut self, slot: usize) -> Option<&mut L> {
        Some(&mut self.lanes[slot].flights.back_mut()?.load)
    }

    /// The load that was handed to a lane last.
    pub(crate) fn newest(&self, slot: usize) -> Option<&L> {
        self.lanes[slot].flights.back().map(|flight| &flight.load)
    }

    /// How many items a lane was handed, ever.
    #[cfg(feature = "tracing")]
    pub(crate) fn handed(&self, slot: usize) -> u64 {
        self.lanes[slot].handed
    }

    /// All loads of a lane, in order.
    pub(crate) fn flights(&self, slot: usize) -> impl Iterator<Item = &L> {
        self.lanes[slot].flights.iter().map(|flight| &flight.load)
    }

    /// The number, counted from 1, of the item that a lane's worker runs, if it runs one, given
    /// that of the last that it began. Items before that have ended, though their outcomes may
    /// not be known yet.
    pub(crate) fn running_item(&self, slot: usize, begun: u64) -> Option<u64> {
        let lane = &self.lanes[slot];
        let flight = lane.flights.iter().find(|flight| !flight.is_done())?;
        let next = flight.first + u64::from(flight.done) + 1;
        (begun >= next).then(|| begun.min(lane.handed))
    }

    /// The same where what had not begun was taken back.
    pub(crate) fn cornered_item(&self, slot: usize) -> Option<u64> {
        self.running_item(slot, self.lanes[slot].cut)
    }

    /// The load that a lane's item with this number belongs to.
    pub(crate) fn load_of(&self, slot: usize, number: u64) -> Option<&L> {
        let mut flights = self.lanes[slot].flights.iter();
        let flight = flights.find(|it| number <= it.first + u64::from(it.load.count()))?;
        (number > flight.first).then_some(&flight.load)
    }

    /// The load that a lane's item with this number belongs to, and its place there, counted from 0.
    pub(crate) fn place_of(&self, slot: usize, number: u64) -> Option<(&L, u32)> {
        let load = self.load_of(slot, number)?;
        let mut flights = self.lanes[slot].flights.iter();
        let flight = flights.find(|it| std::ptr::eq(&raw const it.load, load))?;
        Some((load, (number - flight.first - 1) as u32))
    }

    /// How many items a lane has behind the one with this number.
    pub(crate) fn items_behind(&self, slot: usize, number: u64) -> u64 {
        let behind = |flight: &Flight<L>| {
            let end = flight.first + u64::from(flight.load.count());
            end.saturating_sub(number.max(flight.first))
        };
        self.lanes[slot].flights.iter().map(behind).sum()
    }

    /// The next item of the lane's current load has an outcome. `false`: it has no open item, so
    /// the worker tells nonsense.
    pub(crate) fn item_done(&mut self, slot: usize) -> bool {
        match self.lanes[slot].flights.front_mut() {
            Some(flight) if !flight.is_done() => {
                flight.done += 1;
                true
            }
            _ => false,
        }
    }

    /// How many items of the lane's current load have no outcome.
    pub(crate) fn open_items(&self, slot: usize) -> u32 {
        let flight = self.lanes[slot].flights.front();
        flight.map_or(0, |flight| flight.load.count() - flight.done)
    }

    /// So many items of the lane's current load, which has them, have outcomes.
    pub(crate) fn items_done(&mut self, slot: usize, count: u32) {
        if let Some(flight) = self.lanes[slot].flights.front_mut() {
            flight.done += count;
        }
    }

    /// The worker is through with the lane's current load, after so many nanoseconds. `None`: it
    /// is not, so the worker tells nonsense.
    pub(crate) fn load_done(&mut self, slot: usize, took_ns: u64) -> Option<Done<L>> {
        let lane = &mut self.lanes[slot];
        if !lane.flights.front().is_some_and(Flight::is_done) {
            return None;
        }
        let flight = lane.flights.pop_front()?;
        if std::mem::take(&mut lane.preparing) {
            // It says nothing about how long tasks take.
        } else if lane.load_ns == 0 {
            lane.load_ns = took_ns.max(1);
        } else {
            lane.load_ns = (lane.load_ns - lane.load_ns / 8)
                .saturating_add(took_ns / 8)
                .max(1);
        }
        if lane.is_idle() {
            self.busy -= 1;
            self.idle.push(slot);
        }
        let Flight { load, outcomes, .. } = flight;
        Some(Done { load, outcomes })
    }

    /// The worker was seen to get ahead.
    pub(crate) fn progressed(&mut self, slot: usize) {
        self.lanes[slot].stands_since = None;
    }

    /// The last load handed to this lane is, or is not any more, waiting for space in its ring.
    pub(crate) fn choke(&mut self, slot: usize, choked: bool) {
        self.lanes[slot].choked = choked;
    }

    /// This lane's worker is dead or as good as dead: it gets nothing more, and what it has comes
    /// back when it is down.
    pub(crate) fn doom(&mut self, slot: usize) {
        self.lanes[slot].doomed = true;
    }

    /// A lane whose worker should go now: it has used up its tasks, or there is no more work.
    pub(crate) fn superfluous(&self) -> Option<usize> {
        let over = self.closing && self.queue.is_empty();
        self.lanes.iter().position(|lane| {
            lane.state == LaneState::Up
                && lane.is_idle()
                && !lane.revoked
                && (over || lane.dismissed || lane.tasks_left == Some(0))
        })
    }

    /// Why a lane's worker should go.
    pub(crate) fn reason_to_go(&self, slot: usize) -> EndReason {
        if self.lanes[slot].tasks_left == Some(0) {
            EndReason::MaxTasks
        } else {
            EndReason::Closed
        }
    }

    /// The worker was told to go.
    pub(crate) fn retiring(&mut self, slot: usize) {
        self.lanes[slot].state = LaneState::Retiring;
        self.idle.retain(|&idle| idle != slot);
        // It keeps out of `idle`; `busy` counts lanes with flights only, and it has none.
    }

    /// The worker died when it had begun so many items. Its waiting items go back to the head of
    /// the queue; the rest is for the caller.
    pub(crate) fn down(&mut self, slot: usize, begun: u64) -> Remains<L> {
        let mut remains = Remains {
            finished: Vec::new(),
            lost: None,
        };
        let lane = &mut self.lanes[slot];
        if !lane.is_idle() {
            self.busy -= 1;
        }
        self.idle.retain(|&idle| idle != slot);
        let mut back = Vec::new();
        for flight in std::mem::replace(lane, Lane::new()).flights {
            let Flight {
                load,
                outcomes,
                first,
                done,
            } = flight;
            let (load, rest) = load.split(done);
            remains.finished.push(Done { load, outcomes });
            if rest.count() == 0 {
                continue;
            }
            if remains.lost.is_none() && back.is_empty() && begun > first + u64::from(done) {
                let (lost, rest) = rest.split(1);
                remains.lost = Some(lost);
                if rest.count() > 0 {
                    back.push(rest);
                }
            } else {
                back.push(rest);
            }
        }
        for load in back.into_iter().rev() {
            self.queue.push_front(load);
        }
        remains
    }

    /// Whether a slot without a worker needs one.
    pub(crate) fn wants_worker(&self) -> bool {
        !self.closing || !self.queue.is_empty()
    }

    /// Everything that was not handed out.
    pub(crate) fn drain_queue(&mut self) -> impl Iterator<Item = L> {
        std::mem::take(&mut self.queue).into_iter()
    }

    /// The loads that wait in the queue.
    pub(crate) fn queue(&self) -> &VecDeque<L> {
        &self.queue
    }

    /// Takes the loads out of the queue for which `take` says so.
    pub(crate) fn extract(&mut self, take: impl Fn(&L) -> bool) -> Vec<L> {
        // The loads of one call are neighbours, as a rule: a look is cheaper than a move of all.
        let first = self.queue.iter().position(&take);
        let last = self.queue.iter().rposition(&take);
        let (Some(first), Some(last)) = (first, last) else {
            return Vec::new();
        };
        let (taken, kept): (Vec<L>, Vec<L>) = self.queue.drain(first..=last).partition(take);
        if !kept.is_empty() {
            let mut behind = self.queue.split_off(first);
            self.queue.extend(kept);
            self.queue.append(&mut behind);
        }
        taken
    }

    /// How far a lane's worker is, given the number of the last item that it began by its own
    /// word.
    pub(crate) fn position(&self, slot: usize, begun: u64) -> u64 {
        let lane = &self.lanes[slot];
        let front = lane.flights.front();
        let known = front.map_or(lane.handed, |flight| flight.first + u64::from(flight.done));
        known.max(begun.min(lane.handed))
    }

    /// Whether there are more items than this without an outcome.
    pub(crate) fn has_more_than(&self, count: usize) -> bool {
        let lanes = self.lanes.iter().filter(|lane| !lane.preparing);
        let flights = lanes.flat_map(|lane| &lane.flights);
        let open = flights.map(|flight| flight.load.count() - flight.done);
        let mut items = open.chain(self.queue.iter().map(Load::count));
        let mut left = count as u64;
        items.any(|items| {
            let is_more = u64::from(items) > left;
            left = left.saturating_sub(u64::from(items));
            is_more
        })
    }

    /// How many lanes have work.
    pub(crate) fn busy(&self) -> usize {
        self.busy
    }

    /// Whether a lane has work.
    pub(crate) fn is_busy(&self, slot: usize) -> bool {
        !self.lanes[slot].is_idle()
    }

    /// Whether a lane's worker was told to go.
    pub(crate) fn is_retiring(&self, slot: usize) -> bool {
        self.lanes[slot].state == LaneState::Retiring
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.busy == 0
    }

    /// How many items a lane was handed that have no outcome yet.
    pub(crate) fn open_in(&self, slot: usize) -> u64 {
        let flights = self.lanes[slot].flights.iter();
        flights
            .map(|flight| u64::from(flight.load.count() - flight.done))
            .sum()
    }

    /// How many items were handed out and have no outcome yet.
    pub(crate) fn running(&self) -> u64 {
        (0..self.lanes.len()).map(|slot| self.open_in(slot)).sum()
    }
}

mod balance;
#[cfg(test)]
mod tests;
