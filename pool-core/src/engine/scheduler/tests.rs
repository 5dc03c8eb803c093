//! The scheduler against simulated workers and random events: every item exactly once.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

/// A unit of items that have names.
#[derive(Debug, Clone)]
struct Named {
    items: Vec<u32>,
    /// Shared by all units of a call.
    abandoned: Rc<Cell<bool>>,
    retries: u32,
    is_initializer: bool,
    position: Option<usize>,
    /// How often an outcome of its items does not stay.
    failures: u32,
    /// It is not to begin before that.
    due: u64,
}

impl WorkUnit for Named {
    type Outcomes = ();

    fn outcomes(&self) {}

    fn count(&self) -> u32 {
        self.items.len() as u32
    }

    fn split(mut self, at: u32) -> (Self, Self) {
        let items = self.items.split_off(at as usize);
        let rest = Self {
            items,
            ..self.clone()
        };
        (self, rest)
    }

    fn priority(&self) -> i32 {
        // Where it is tried again, it is urgent.
        self.retries as i32
    }

    fn is_refused(&self) -> bool {
        self.abandoned.get()
    }

    fn position(&self) -> Option<usize> {
        self.position
    }
}

/// What a worker process does with what it was handed.
#[derive(Debug, Default)]
struct Worker {
    /// The items of each frame that it has not read to the end.
    frames: VecDeque<VecDeque<u32>>,
    /// Items that it has begun or passed over.
    items: u64,
    /// What it has written down: the last item that it has begun, or has found taken back.
    begun: u64,
    running: Option<u32>,
    reclaiming: bool,
    /// What it has answered and the parent has not read.
    answers: VecDeque<Answer>,
    /// The first frame is the initializer's, and not answered as far as the parent knows.
    preparing: bool,
    /// It waits for another one to go.
    reserved: bool,
    /// It is to go when it is done.
    dismissed: bool,
    /// It was told to go.
    retiring: bool,
    /// It is dead, or will be before it begins anything, and the parent has not booked its death.
    killed: Option<Death>,
    /// Frames of which it has run something, without the initializer's.
    tasks: u64,
    has_run_of_frame: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Item,
    Frame,
}

/// Of what a worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Crash,
    /// It wrote rubbish, so that nothing more of it is read.
    ProtocolViolation,
    /// Its running item was to be killed.
    Cancelled,
}

/// A pool in which time passes step by step.
struct World {
    scheduler: Scheduler<Named>,
    workers: PerSlot<Option<Worker>>,
    /// Of each item, how many outcomes it has, and how often it was run.
    outcomes: Vec<u32>,
    runs: Vec<u32>,
    /// How often each item may be run: once more for each time that it was lost, or its outcome
    /// not read.
    may_run: Vec<u32>,
    calls: Vec<Rc<Cell<bool>>>,
    max_tasks: Option<u64>,
    has_initializer: bool,
    is_closed: bool,
    /// Units that have ended, and whose call is asked whether that stays.
    undecided: VecDeque<Named>,
    /// Positions that had no worker for a while.
    was_closed: [bool; LANES],
    now: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Submit {
        items: u32,
        retries: u32,
        position: Option<usize>,
        failures: u32,
    },
    /// It is decided what of a unit stays; the rest is tried again after this time.
    Decide(u64),
    ClosePosition(usize),
    OpenPosition(usize),
    Up(SlotId),
    /// The same for one that waits for another one to go.
    UpInReserve(SlotId),
    Release(SlotId),
    Dismiss(SlotId),
    Begin(SlotId),
    Finish(SlotId),
    /// The parent reads this many answers.
    Read(SlotId, usize),
    Die(SlotId, Death),
    /// The worker is dead, or the parent does not wait for that any more.
    Exit(SlotId),
    ReleaseLeadership(SlotId),
    TakeBack(SlotId),
    Choke(SlotId, bool),
    Cancel {
        call: usize,
        kill: bool,
    },
    Balance,
    Wait,
    Close,
}

const LANES: usize = 3;
const FIRST: SlotId = SlotId::new(0);
const SECOND: SlotId = SlotId::new(1);
/// What the initializer's one item is called.
const INITIALIZER: u32 = u32::MAX;

impl World {
    fn new(max_tasks: Option<u64>, has_initializer: bool) -> Self {
        Self {
            scheduler: Scheduler::new(LANES, max_tasks),
            workers: (0..LANES).map(|_| None).collect(),
            outcomes: Vec::new(),
            runs: Vec::new(),
            may_run: Vec::new(),
            calls: Vec::new(),
            max_tasks,
            has_initializer,
            is_closed: false,
            undecided: VecDeque::new(),
            was_closed: [false; LANES],
            now: 0,
        }
    }

    fn outcome(&mut self, unit: &Named) {
        if !unit.is_initializer {
            for &item in &unit.items {
                self.outcomes[item as usize] += 1;
            }
        }
    }

    fn step(&mut self, step: &Step) {
        self.now += 1000;
        for unit in self.scheduler.take_due(self.now).into_iter().rev() {
            self.scheduler.resubmit(unit);
        }
        assert!(self.scheduler.next_due().is_none_or(|due| due > self.now));
        match *step {
            Step::Submit {
                items,
                retries,
                position,
                failures,
            } => self.submit(items, retries, position, failures),
            Step::Decide(delay) => self.decide(delay),
            Step::ClosePosition(position) => {
                self.was_closed[position] = true;
                self.scheduler.close_position(position);
            }
            Step::OpenPosition(position) => self.scheduler.open_position(position),
            Step::Up(slot) => self.up(slot, false),
            Step::UpInReserve(slot) => self.up(slot, true),
            Step::Release(slot) => {
                self.scheduler.release(slot);
                if let Some(worker) = &mut self.workers[slot] {
                    worker.reserved = false;
                }
            }
            Step::Dismiss(slot) => {
                if let Some(worker) = &mut self.workers[slot] {
                    worker.dismissed = true;
                    if self.scheduler.dismiss(slot) {
                        self.begin_reclaim(slot);
                    }
                }
            }
            Step::Begin(slot) => self.begin(slot),
            Step::Finish(slot) => self.finish(slot),
            Step::Read(slot, count) => self.read(slot, count),
            Step::Die(slot, death) => {
                if let Some(worker) = &mut self.workers[slot] {
                    worker.killed.get_or_insert(death);
                    self.scheduler.give_up(slot);
                }
            }
            Step::Exit(slot) => self.on_exit(slot),
            Step::ReleaseLeadership(slot) => self.leave(slot),
            Step::TakeBack(slot) => {
                // From a worker that is being initialized there is nothing to take.
                if self.workers[slot]
                    .as_ref()
                    .is_some_and(|worker| !worker.preparing)
                {
                    self.begin_reclaim(slot);
                }
            }
            Step::Choke(slot, choked) => {
                let worker = self.workers[slot].as_ref();
                if worker.is_some_and(|worker| worker.killed.is_none()) {
                    if choked {
                        self.scheduler.choke(slot);
                    } else {
                        self.scheduler.unchoke(slot);
                    }
                }
            }
            Step::Cancel { call, kill } => self.cancel(call, kill),
            Step::Balance => {
                if let Some(Imbalance::TakeBack(slot)) = self.scheduler.imbalance(|| self.now) {
                    assert!(!self.scheduler.is_reclaimed(slot));
                    self.begin_reclaim(slot);
                }
            }
            Step::Wait => self.now += 1_000_000,
            Step::Close => {
                self.is_closed = true;
                self.scheduler.close();
            }
        }
        self.look_at_rings();
        self.hand_out();
    }

    fn submit(&mut self, items: u32, retries: u32, position: Option<usize>, failures: u32) {
        let next = self.outcomes.len() as u32;
        let unit = Named {
            items: (next..next + items).collect(),
            abandoned: Rc::default(),
            retries,
            is_initializer: false,
            position,
            failures,
            due: 0,
        };
        for list in [&mut self.outcomes, &mut self.runs] {
            list.resize(list.len() + items as usize, 0);
        }
        self.may_run.resize(self.outcomes.len(), 1);
        if self.is_closed {
            self.outcome(&unit);
        } else {
            self.calls.push(unit.abandoned.clone());
            self.scheduler.submit(unit);
        }
    }

    fn up(&mut self, slot: SlotId, reserved: bool) {
        if self.workers[slot].is_some() || !self.scheduler.wants_worker() {
            return;
        }
        let mut worker = Worker {
            reserved,
            ..Worker::default()
        };
        self.scheduler.up(slot);
        if reserved {
            self.scheduler.reserve(slot);
        }
        if self.has_initializer {
            let unit = Named {
                items: vec![INITIALIZER],
                abandoned: Rc::default(),
                retries: 0,
                is_initializer: true,
                position: None,
                failures: 0,
                due: 0,
            };
            self.scheduler.prepare(slot, unit);
            worker.frames.push_back(VecDeque::from([INITIALIZER]));
            worker.preparing = true;
        }
        self.workers[slot] = Some(worker);
    }

    fn hand_out(&mut self) {
        let mut abandoned = Vec::new();
        while let Some(slot) = self.scheduler.assign(&mut abandoned) {
            let unit = self.scheduler.newest(slot).expect("just assigned").clone();
            assert!(unit.due <= self.now, "nothing before its time");
            let worker = self.workers[slot]
                .as_mut()
                .expect("queues that are up have workers");
            assert!(!worker.reclaiming, "nothing new behind what was taken back");
            assert!(
                !worker.preparing,
                "nothing before the initializer is through"
            );
            assert!(!worker.reserved, "nothing before it is its turn");
            assert!(!worker.dismissed, "nothing after it was dismissed");
            assert!(
                !worker.retiring && worker.killed.is_none(),
                "it is given up"
            );
            if let Some(position) = unit.position.filter(|it| *it < LANES) {
                let is_its_own = position == slot.index() || self.was_closed[position];
                assert!(is_its_own, "it is for the worker of position {position}");
            }
            worker.frames.push_back(unit.items.into());
        }
        let queue = &self.scheduler.queue;
        assert!(queue.iter().is_sorted_by_key(|unit| -unit.priority()));
        for unit in abandoned {
            assert!(unit.is_refused());
            self.outcome(&unit);
        }
        while let Some(slot) = self.scheduler.superfluous(!self.undecided.is_empty()) {
            self.scheduler.retiring(slot);
            let worker = self.workers[slot].as_mut().expect("a worker");
            assert!(worker.frames.is_empty() && worker.answers.is_empty());
            assert!(worker.dismissed || self.is_closed || self.max_tasks.is_some());
            worker.retiring = true;
        }
    }

    fn begin_reclaim(&mut self, slot: SlotId) {
        let Some(worker) = &mut self.workers[slot] else {
            return;
        };
        if worker.reclaiming || worker.retiring || worker.killed.is_some() {
            return;
        }
        worker.reclaiming = true;
        self.scheduler.reclaimed_up_to(slot, worker.begun);
    }

    /// The worker claims its next item, or passes over the rest of a frame.
    fn begin(&mut self, slot: SlotId) {
        let Some(worker) = &mut self.workers[slot] else {
            return;
        };
        if worker.running.is_some() || worker.killed.is_some() {
            return;
        }
        let Some(frame) = worker.frames.front_mut() else {
            return;
        };
        if let Some(&item) = frame.front() {
            worker.begun = worker.items + 1;
            if worker.reclaiming {
                worker.items += frame.len() as u64;
                frame.clear();
            } else {
                frame.pop_front();
                worker.items += 1;
                worker.running = Some(item);
                if item != INITIALIZER {
                    self.runs[item as usize] += 1;
                    if !std::mem::replace(&mut worker.has_run_of_frame, true) {
                        worker.tasks += 1;
                    }
                    assert!(self.max_tasks.is_none_or(|most| worker.tasks <= most));
                }
            }
        }
        worker.end_frame();
    }

    fn finish(&mut self, slot: SlotId) {
        if let Some(worker) = &mut self.workers[slot]
            && worker.running.take().is_some()
        {
            worker.answers.push_back(Answer::Item);
            worker.end_frame();
        }
    }

    /// The parent takes in answers.
    fn read(&mut self, slot: SlotId, count: usize) {
        let Some(worker) = &self.workers[slot] else {
            return;
        };
        // What a killed worker has answered is read when it is dead.
        if worker.killed.is_none() {
            self.read_answers(slot, count);
        }
    }

    fn read_answers(&mut self, slot: SlotId, count: usize) {
        for _ in 0..count {
            let worker = self.workers[slot].as_mut().expect("a worker");
            match worker.answers.pop_front() {
                None => return,
                Some(Answer::Item) => {
                    assert!(self.scheduler.item_done(slot).is_some(), "it was open")
                }
                Some(Answer::Frame) => {
                    worker.preparing = false;
                    let done = self.scheduler.unit_done(slot, 500);
                    self.ended(done.expect("all its items are done").unit);
                }
            }
            self.scheduler.progressed(slot);
        }
    }

    /// The parent looks whether workers have read all that they were sent.
    fn look_at_rings(&mut self) {
        for (slot, worker) in self.workers.iter_mut() {
            if let Some(worker) = worker
                && worker.reclaiming
                && worker.killed.is_none()
                && worker.frames.iter().all(VecDeque::is_empty)
            {
                worker.reclaiming = false;
                self.scheduler.finish_reclaim(slot);
            }
        }
    }

    fn cancel(&mut self, call: usize, kill: bool) {
        let Some(call) = self.calls.iter().rev().nth(call).cloned() else {
            return;
        };
        call.set(true);
        for slot in (0..LANES).map(SlotId::new) {
            let is_here = |unit: &Named| Rc::ptr_eq(&unit.abandoned, &call);
            if !self.scheduler.in_flight(slot).any(is_here) {
                continue;
            }
            self.begin_reclaim(slot);
            self.read(slot, usize::MAX);
            let Some(worker) = self.workers[slot].as_mut() else {
                continue;
            };
            if worker.killed.is_some() {
                continue;
            }
            let item = self.scheduler.frozen_item(slot);
            assert_eq!(
                item.is_some(),
                worker.running.is_some(),
                "what runs is known"
            );
            let unit = item.and_then(|item| self.scheduler.unit_of(slot, item));
            if kill && unit.is_some_and(is_here) {
                worker.killed = Some(Death::Cancelled);
                self.scheduler.give_up(slot);
            }
        }
        for unit in self
            .scheduler
            .extract(|unit| Rc::ptr_eq(&unit.abandoned, &call))
        {
            self.outcome(&unit);
        }
        let mut left = self.scheduler.queued();
        assert!(left.all(|unit| !Rc::ptr_eq(&unit.abandoned, &call)));
    }

    fn on_exit(&mut self, slot: SlotId) {
        let Some(death) = self.workers[slot].as_ref().and_then(|worker| worker.killed) else {
            return;
        };
        if death != Death::ProtocolViolation {
            self.read_answers(slot, usize::MAX);
        }
        let worker = self.workers[slot].take().expect("a worker");
        let salvaged = self.scheduler.down(slot, worker.begun);
        let lost = salvaged.lost.as_ref().map(|unit| unit.items.clone());
        if death == Death::ProtocolViolation {
            // What it had run may be run again.
            let known = salvaged.finished.iter().flat_map(|done| &done.unit.items);
            let known: Vec<u32> = known.copied().collect();
            for (&runs, (item, may_run)) in self.runs.iter().zip((0..).zip(&mut self.may_run)) {
                *may_run = if known.contains(&item) {
                    *may_run
                } else {
                    runs + 1
                };
            }
        } else {
            let running = worker.running.map(|item| vec![item]);
            assert_eq!(lost, running, "exactly the running item is lost");
        }
        for done in salvaged.finished {
            self.ended(done.unit);
        }
        self.scheduler.extract(|unit| unit.is_initializer);
        if let Some(mut lost) = salvaged.lost {
            assert_eq!(lost.count(), 1);
            let again = lost.retries > 0 && death != Death::Cancelled;
            if again && !lost.is_refused() {
                lost.retries -= 1;
                self.may_run[lost.items[0] as usize] += 1;
                self.scheduler.resubmit(lost);
            } else {
                self.ended(lost);
            }
        }
    }

    /// The items of a unit have outcomes.
    fn ended(&mut self, unit: Named) {
        if unit.failures > 0 && unit.count() > 0 {
            self.undecided.push_back(unit);
        } else {
            self.outcome(&unit);
        }
    }

    /// Every other item of a unit is tried again, alone, if its call was not cancelled meanwhile.
    fn decide(&mut self, delay: u64) {
        let Some(unit) = self.undecided.pop_front() else {
            return;
        };
        for &item in &unit.items {
            let again = Named {
                items: vec![item],
                failures: unit.failures - 1,
                due: self.now + delay,
                ..unit.clone()
            };
            if item % 2 == 0 || again.is_refused() {
                self.outcome(&again);
                continue;
            }
            self.may_run[item as usize] += 1;
            if delay == 0 {
                self.scheduler.resubmit(again);
            } else {
                self.scheduler.delay(again, self.now + delay);
            }
        }
    }

    fn leave(&mut self, slot: SlotId) {
        let is_leaving = |worker: &mut Worker| worker.retiring && worker.killed.is_none();
        if let Some(worker) = self.workers[slot].take_if(is_leaving) {
            let salvaged = self.scheduler.down(slot, worker.begun);
            assert!(salvaged.finished.is_empty() && salvaged.lost.is_none());
        }
    }

    /// Lets everything end, and checks that every item had one outcome.
    fn end(mut self) {
        self.step(&Step::Close);
        for _ in 0..100_000 {
            self.step(&Step::Decide(0));
            for slot in (0..LANES).map(SlotId::new) {
                self.step(&Step::Up(slot));
                self.step(&Step::Release(slot));
                self.step(&Step::Choke(slot, false));
                self.step(&Step::Begin(slot));
                self.step(&Step::Finish(slot));
                self.step(&Step::Read(slot, 2));
                self.step(&Step::ReleaseLeadership(slot));
                self.step(&Step::Exit(slot));
            }
            let is_decided = self.undecided.is_empty();
            if is_decided && self.scheduler.is_empty() && self.workers.values().all(Option::is_none)
            {
                assert!(
                    self.outcomes.iter().all(|&times| times == 1),
                    "{:?}",
                    self.outcomes
                );
                let mut runs = self.runs.iter().zip(&self.may_run);
                assert!(runs.all(|(runs, may_run)| runs <= may_run));
                assert_eq!(self.scheduler.running(), 0);
                assert_eq!(self.scheduler.busy(), 0);
                return;
            }
        }
        panic!("it never ends");
    }
}

impl Worker {
    /// Says that a frame is done, as soon as it is.
    fn end_frame(&mut self) {
        if self.running.is_none() && self.frames.front().is_some_and(VecDeque::is_empty) {
            self.frames.pop_front();
            self.answers.push_back(Answer::Frame);
            self.has_run_of_frame = false;
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = (0..LANES).prop_map(SlotId::new);
    let failures = prop_oneof![3 => Just(0), 1 => 1_u32..4];
    let death = prop_oneof![5 => Just(Death::Crash), 1 => Just(Death::ProtocolViolation)];
    prop::collection::vec(
        prop_oneof![
            6 => (1_u32..12, 0_u32..3, prop::option::weighted(0.3, 0..LANES + 1), failures)
                .prop_map(|(items, retries, position, failures)| {
                    Step::Submit { items, retries, position, failures }
                }),
            4 => prop_oneof![Just(0), 1_u64..40_000].prop_map(Step::Decide),
            1 => (0..LANES).prop_map(Step::ClosePosition),
            1 => (0..LANES).prop_map(Step::OpenPosition),
            5 => slot.clone().prop_map(Step::Up),
            2 => slot.clone().prop_map(Step::UpInReserve),
            4 => slot.clone().prop_map(Step::Release),
            2 => slot.clone().prop_map(Step::Dismiss),
            24 => slot.clone().prop_map(Step::Begin),
            20 => slot.clone().prop_map(Step::Finish),
            16 => (slot.clone(), 1_usize..5).prop_map(|(slot, count)| Step::Read(slot, count)),
            2 => (slot.clone(), death).prop_map(|(slot, death)| Step::Die(slot, death)),
            4 => slot.clone().prop_map(Step::Exit),
            3 => slot.clone().prop_map(Step::ReleaseLeadership),
            3 => slot.clone().prop_map(Step::TakeBack),
            3 => (slot, prop::bool::weighted(0.3))
                .prop_map(|(slot, choked)| Step::Choke(slot, choked)),
            2 => (0_usize..3, any::<bool>()).prop_map(|(call, kill)| Step::Cancel { call, kill }),
            6 => Just(Step::Balance),
            3 => Just(Step::Wait),
        ],
        0..300,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_item_has_one_outcome(
        steps in steps(),
        max_tasks in prop::option::of(1_u64..4),
        has_initializer in any::<bool>(),
        close_at in prop::option::of(0_usize..300),
    ) {
        let mut world = World::new(max_tasks, has_initializer);
        for (number, step) in steps.iter().enumerate() {
            if close_at == Some(number) {
                world.step(&Step::Close);
            }
            world.step(step);
        }
        world.end();
    }
}

#[test]
fn what_waits_behind_a_long_item_is_taken_back_for_an_idle_worker() {
    let mut world = World::new(None, false);
    world.step(&Step::Up(FIRST));
    world.step(&Step::Submit {
        items: 10,
        retries: 0,
        position: None,
        failures: 0,
    });
    world.step(&Step::Begin(FIRST));
    world.step(&Step::Up(SECOND));
    assert!(matches!(
        world.scheduler.imbalance(|| world.now),
        Some(Imbalance::AskAgain(_))
    ));
    world.step(&Step::Wait);
    assert_eq!(
        world.scheduler.imbalance(|| world.now),
        Some(Imbalance::TakeBack(FIRST))
    );
    world.step(&Step::Balance);
    assert!(
        world.scheduler.is_busy(SECOND),
        "the idle worker has it now"
    );
    assert_eq!(
        world.scheduler.frozen_item(FIRST),
        Some(1),
        "the first item still runs"
    );
    world.end();
}

#[test]
fn the_worker_that_worked_last_gets_the_next_task() {
    let mut world = World::new(None, false);
    for slot in (0..LANES).map(SlotId::new) {
        world.step(&Step::Up(slot));
    }
    for slot in [0, 2, 1].map(SlotId::new) {
        // Make `slot` the one that worked last by keeping the others from it.
        world.scheduler.idle.retain(|&idle| idle != slot);
        world.scheduler.idle.push(slot);
        world.step(&Step::Submit {
            items: 1,
            retries: 0,
            position: None,
            failures: 0,
        });
        assert!(world.scheduler.is_busy(slot));
        world.step(&Step::Begin(slot));
        world.step(&Step::Finish(slot));
        world.step(&Step::Read(slot, 2));
        assert_eq!(world.scheduler.idle.last(), Some(&slot));
    }
}

#[test]
fn a_worker_gets_no_more_tasks_than_it_may() {
    let mut world = World::new(Some(2), false);
    world.step(&Step::Up(FIRST));
    for _ in 0..5 {
        world.step(&Step::Submit {
            items: 1,
            retries: 0,
            position: None,
            failures: 0,
        });
    }
    assert_eq!(world.scheduler.in_flight(FIRST).count(), 2);
    assert_eq!(world.scheduler.queue_len(), 3);
    world.end();
}

/// Once a worker has passed over what was taken back, an empty rest of that waits for its answer;
/// it must not count as taken back a second time.
#[test]
fn what_was_taken_back_counts_once() {
    let mut world = World::new(Some(1), false);
    world.step(&Step::Up(FIRST));
    for step in [
        Step::Submit {
            items: 1,
            retries: 0,
            position: None,
            failures: 0,
        },
        Step::TakeBack(FIRST),
        Step::Begin(FIRST),
        Step::Begin(FIRST),
        Step::TakeBack(FIRST),
        Step::Submit {
            items: 1,
            retries: 0,
            position: None,
            failures: 0,
        },
    ] {
        world.step(&step);
    }
    world.end();
}

/// What only one worker may take waits for it, and is not taken back; others go on.
#[test]
fn what_is_for_one_worker_waits_for_it() {
    let mut world = World::new(None, false);
    world.step(&Step::Up(FIRST));
    world.step(&Step::Up(SECOND));
    let pinned = Step::Submit {
        items: 5,
        retries: 0,
        position: Some(SECOND.index()),
        failures: 0,
    };
    world.step(&pinned);
    world.step(&pinned);
    assert_eq!(world.scheduler.in_flight(SECOND).count(), 1);
    world.step(&Step::Begin(SECOND));
    world.step(&Step::Wait);
    assert_eq!(world.scheduler.imbalance(|| world.now), None);
    // Two others: one for each worker.
    for _ in 0..2 {
        world.step(&Step::Submit {
            items: 1,
            retries: 0,
            position: None,
            failures: 0,
        });
    }
    assert!(world.scheduler.is_busy(FIRST));
    assert!(world.scheduler.has_pinned() && world.scheduler.is_wanted(SECOND.index()));
    world.end();
}

/// The common queue does not keep a worker from what is for it alone, nor the other way round.
#[test]
fn a_worker_takes_turns_between_its_own_and_the_common_queue() {
    let mut world = World::new(None, false);
    let submit = |position| Step::Submit {
        items: 1,
        retries: 0,
        position,
        failures: 0,
    };
    world.step(&Step::Up(FIRST));
    world.step(&submit(None));
    for position in [Some(0), None, None, Some(0)] {
        world.step(&submit(position));
        assert_eq!(world.scheduler.in_flight(FIRST).count(), 1, "it is kept");
    }
    let mut order = Vec::new();
    while world.scheduler.is_busy(FIRST) {
        order.extend(world.scheduler.front(FIRST).map(|it| it.unit.items[0]));
        world.step(&Step::Begin(FIRST));
        world.step(&Step::Finish(FIRST));
        world.step(&Step::Read(FIRST, 2));
    }
    assert_eq!(order, [0, 1, 2, 4, 3]);
}
