//! The scheduler against simulated workers and random events: every item exactly once.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A load of items that have names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    items: Vec<u32>,
    abandoned: bool,
}

impl Load for Named {
    type Outcomes = ();

    fn outcomes(&self) {}

    fn count(&self) -> u32 {
        self.items.len() as u32
    }

    fn split(mut self, at: u32) -> (Self, Self) {
        let items = self.items.split_off(at as usize);
        let abandoned = self.abandoned;
        (self, Self { items, abandoned })
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned
    }
}

fn named(items: impl IntoIterator<Item = u32>) -> Named {
    Named {
        items: items.into_iter().collect(),
        abandoned: false,
    }
}

/// What a worker process does with what it was handed.
#[derive(Debug, Default)]
struct Worker {
    /// The items of each frame that it has not read to the end.
    frames: VecDeque<VecDeque<u32>>,
    begun: u64,
    running: Option<u32>,
    revoked: bool,
}

/// A pool in which time passes step by step.
struct World {
    scheduler: Scheduler<Named>,
    workers: Vec<Option<Worker>>,
    outcomes: Vec<u32>,
    next: u32,
    now: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Submit { items: u32, abandoned: bool },
    Up(usize),
    Begin(usize),
    Finish(usize),
    Crash(usize),
    TakeBack(usize),
    Balance,
    Wait,
}

const LANES: usize = 3;

impl World {
    fn new(max_tasks: Option<u64>) -> Self {
        Self {
            scheduler: Scheduler::new(LANES, max_tasks),
            workers: (0..LANES).map(|_| None).collect(),
            outcomes: Vec::new(),
            next: 0,
            now: 0,
        }
    }

    fn outcome(&mut self, item: u32) {
        self.outcomes[item as usize] += 1;
    }

    fn step(&mut self, step: &Step) {
        self.now += 1000;
        match *step {
            Step::Submit { items, abandoned } => {
                let load = Named {
                    abandoned,
                    ..named(self.next..self.next + items)
                };
                self.next += items;
                self.outcomes.resize(self.next as usize, 0);
                self.scheduler.submit(load);
            }
            Step::Up(slot) => {
                if self.workers[slot].is_none() {
                    self.workers[slot] = Some(Worker::default());
                    self.scheduler.up(slot);
                }
            }
            Step::Begin(slot) => self.begin(slot),
            Step::Finish(slot) => self.finish(slot),
            Step::Crash(slot) => self.crash(slot),
            Step::TakeBack(slot) => {
                if self.workers[slot].is_some() && !self.scheduler.is_revoked(slot) {
                    self.take_back(slot);
                }
            }
            Step::Balance => {
                if let Some(Imbalance::TakeBack(slot)) = self.scheduler.imbalance(|| self.now) {
                    self.take_back(slot);
                }
            }
            Step::Wait => self.now += 1_000_000,
        }
        self.look_at_rings();
        self.hand_out();
    }

    fn hand_out(&mut self) {
        let mut abandoned = Vec::new();
        while let Some(slot) = self.scheduler.assign(&mut abandoned) {
            let load = self.scheduler.newest(slot).expect("just assigned").clone();
            let worker = self.workers[slot]
                .as_mut()
                .expect("lanes that are up have workers");
            assert!(!worker.revoked, "nothing new behind what was taken back");
            worker.frames.push_back(load.items.into());
        }
        for load in abandoned {
            for item in load.items {
                self.outcome(item);
            }
        }
        while let Some(slot) = self.scheduler.superfluous() {
            self.scheduler.retiring(slot);
            self.scheduler.down(slot, 0);
            self.workers[slot] = None;
        }
    }

    fn take_back(&mut self, slot: usize) {
        let worker = self.workers[slot].as_mut().expect("a worker");
        worker.revoked = true;
        self.scheduler.taken_back(slot, worker.begun);
    }

    /// The worker claims its next item, or passes over it.
    fn begin(&mut self, slot: usize) {
        let Some(worker) = &mut self.workers[slot] else {
            return;
        };
        if worker.running.is_some() {
            return;
        }
        let Some(frame) = worker.frames.front_mut() else {
            return;
        };
        match frame.pop_front() {
            Some(item) if !worker.revoked => {
                worker.begun += 1;
                worker.running = Some(item);
            }
            Some(_) => worker.begun += 1,
            None => {}
        }
        self.end_frame(slot);
    }

    fn finish(&mut self, slot: usize) {
        let Some(item) = self.workers[slot]
            .as_mut()
            .and_then(|worker| worker.running.take())
        else {
            return;
        };
        assert!(self.scheduler.item_done(slot), "its item was open");
        self.scheduler.progressed(slot);
        // The outcome is the load's; it is counted when the load is given back.
        let _ = item;
        self.end_frame(slot);
    }

    /// Says that a frame is through, as soon as it is.
    fn end_frame(&mut self, slot: usize) {
        let worker = self.workers[slot].as_mut().expect("a worker");
        if worker.running.is_some() {
            return;
        }
        if worker.frames.front().is_some_and(VecDeque::is_empty) {
            worker.frames.pop_front();
            let load = self
                .scheduler
                .load_done(slot, 500)
                .expect("all its items are done");
            for item in load.load.items {
                self.outcome(item);
            }
        }
    }

    /// The parent looks whether workers have read all that they were sent.
    fn look_at_rings(&mut self) {
        for (slot, worker) in self.workers.iter_mut().enumerate() {
            if let Some(worker) = worker
                && worker.revoked
                && worker.frames.iter().all(VecDeque::is_empty)
            {
                worker.revoked = false;
                self.scheduler.passed_over(slot);
            }
        }
    }

    fn crash(&mut self, slot: usize) {
        let Some(worker) = self.workers[slot].take() else {
            return;
        };
        let remains = self.scheduler.down(slot, worker.begun);
        let lost = remains.lost.as_ref().map(|load| load.items.clone());
        let running: Option<Vec<u32>> = worker.running.map(|item| vec![item]);
        assert_eq!(lost, running, "exactly the running item is lost");
        let finished = remains.finished.into_iter().map(|done| done.load);
        for load in finished.chain(remains.lost) {
            for item in load.items {
                self.outcome(item);
            }
        }
    }

    /// Lets everything end, and checks that every item had one outcome.
    fn end(mut self) {
        self.scheduler.close();
        for _ in 0..100_000 {
            for slot in 0..LANES {
                if self.scheduler.wants_worker() {
                    self.step(&Step::Up(slot));
                }
                self.step(&Step::Begin(slot));
                self.step(&Step::Finish(slot));
            }
            if self.scheduler.is_empty() && self.workers.iter().all(Option::is_none) {
                assert!(
                    self.outcomes.iter().all(|&times| times == 1),
                    "{:?}",
                    self.outcomes
                );
                assert_eq!(self.scheduler.running(), 0);
                return;
            }
        }
        panic!("it never ends: {:?}", self.workers);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slot = 0..LANES;
    prop::collection::vec(
        prop_oneof![
            3 => (1_u32..12, prop::bool::weighted(0.1))
                .prop_map(|(items, abandoned)| Step::Submit { items, abandoned }),
            2 => slot.clone().prop_map(Step::Up),
            8 => slot.clone().prop_map(Step::Begin),
            7 => slot.clone().prop_map(Step::Finish),
            1 => slot.clone().prop_map(Step::Crash),
            1 => slot.prop_map(Step::TakeBack),
            2 => Just(Step::Balance),
            1 => Just(Step::Wait),
        ],
        0..200,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_item_has_one_outcome(
        steps in steps(),
        max_tasks in prop::option::of(1_u64..4),
    ) {
        let mut world = World::new(max_tasks);
        for step in &steps {
            world.step(step);
        }
        world.end();
    }
}

#[test]
fn what_waits_behind_a_long_item_is_taken_back_for_an_idle_worker() {
    let mut world = World::new(None);
    world.step(&Step::Up(0));
    world.step(&Step::Submit {
        items: 10,
        abandoned: false,
    });
    world.step(&Step::Begin(0));
    world.step(&Step::Up(1));
    assert!(matches!(
        world.scheduler.imbalance(|| world.now),
        Some(Imbalance::AskAgain(_))
    ));
    world.step(&Step::Wait);
    assert_eq!(
        world.scheduler.imbalance(|| world.now),
        Some(Imbalance::TakeBack(0))
    );
    world.step(&Step::Balance);
    assert!(world.scheduler.is_busy(1), "the idle worker has it now");
    assert_eq!(
        world.scheduler.cornered_item(0),
        Some(1),
        "the first item still runs"
    );
    world.end();
}

#[test]
fn the_worker_that_worked_last_gets_the_next_task() {
    let mut world = World::new(None);
    for slot in 0..LANES {
        world.step(&Step::Up(slot));
    }
    for slot in [0, 2, 1] {
        // Make `slot` the one that worked last by keeping the others from it.
        world.scheduler.idle.retain(|&idle| idle != slot);
        world.scheduler.idle.push(slot);
        world.step(&Step::Submit {
            items: 1,
            abandoned: false,
        });
        assert!(world.scheduler.is_busy(slot));
        world.step(&Step::Begin(slot));
        world.step(&Step::Finish(slot));
        assert_eq!(world.scheduler.idle.last(), Some(&slot));
    }
}

#[test]
fn a_worker_gets_no_more_tasks_than_it_may() {
    let mut world = World::new(Some(2));
    world.step(&Step::Up(0));
    for _ in 0..5 {
        world.step(&Step::Submit {
            items: 1,
            abandoned: false,
        });
    }
    assert_eq!(world.scheduler.flights(0).count(), 2);
    assert_eq!(world.scheduler.queue().len(), 3);
    world.end();
}
