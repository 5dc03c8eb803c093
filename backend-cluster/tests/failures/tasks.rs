//! What workers run, and what it leaves in files.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use procpool_cluster::ClusterPool;
use procpool_core::{Pool, TaskHandle};
use procpool_testing::file_barrier::{self, Gate, Tally};
use procpool_testing::procfs::wait_until;

/// Tasks that write down that they run, and then wait at a gate.
pub(crate) struct Work {
    tally: Tally,
    pub(crate) gate: Gate,
}

/// The tickets of the tally and of the gate, and the task's number.
type Item = (String, String, u32);

/// Writes down that it runs, and passes the gate.
fn pass((tally, gate, number): Item) -> u32 {
    file_barrier::add(&tally, format!("{number} {}", std::process::id()));
    file_barrier::pass(&gate);
    number
}

/// Writes down that it runs, and takes a moment.
fn take_a_moment((tally, _, number): Item) -> u32 {
    file_barrier::add(&tally, format!("{number} {}", std::process::id()));
    thread::sleep(Duration::from_millis(10));
    number
}

/// Writes down that it runs.
fn be_quick((tally, _, number): Item) -> u32 {
    file_barrier::add(&tally, format!("{number} {}", std::process::id()));
    number
}

/// What a task does.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Pass,
    TakeAMoment,
    BeQuick,
}

impl Work {
    #[allow(clippy::new_without_default, reason = "it makes folders")]
    pub(crate) fn new() -> Self {
        Self {
            tally: Tally::new(),
            gate: Gate::new(),
        }
    }

    /// The tickets: see [`start`].
    pub(crate) fn tickets(&self) -> (String, String) {
        (self.tally.ticket(), self.gate.ticket())
    }

    /// Starts so many tasks, each of which waits at the gate.
    pub(crate) fn start(&self, pool: &ClusterPool, tasks: u32, retries: u32) -> Started {
        self.start_some(pool, What::Pass, 0..tasks, retries)
    }

    /// The same of these numbers.
    pub(crate) fn start_some(
        &self,
        pool: &ClusterPool,
        what: What,
        numbers: std::ops::Range<u32>,
        retries: u32,
    ) -> Started {
        start(pool, &self.tickets(), what, numbers, retries)
    }

    /// The tasks that have begun, in this order, with the processes that they have begun in.
    pub(crate) fn runs(&self) -> Vec<(u32, u32)> {
        let lines = self.tally.lines();
        let runs = lines.iter().map(|line| {
            let (number, pid) = line.split_once(' ').expect("two numbers");
            (number.parse().expect("one"), pid.parse().expect("another"))
        });
        runs.collect()
    }

    /// Waits until so many have begun.
    pub(crate) fn wait_for_runs(&self, runs: usize) {
        wait_until(|| self.tally.count() >= runs);
    }

    /// The tasks that ran in one of these processes.
    pub(crate) fn of(&self, pids: &[u32]) -> Vec<u32> {
        let runs = self.runs().into_iter();
        let mut numbers: Vec<u32> = runs
            .filter(|(_, pid)| pids.contains(pid))
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// How often each has run.
    pub(crate) fn counts(&self) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for (number, _) in self.runs() {
            *counts.entry(number).or_default() += 1;
        }
        counts
    }

    /// Each of so many tasks has run once, and no other.
    pub(crate) fn assert_once(&self, tasks: u32) {
        let once = (0..tasks).map(|number| (number, 1)).collect();
        assert_eq!(self.counts(), once);
    }
}

/// Tasks under way, by their numbers.
pub(crate) type Started = Vec<(u32, TaskHandle<u32>)>;

/// Starts tasks of these numbers.
pub(crate) fn start(
    pool: &ClusterPool,
    (tally, gate): &(String, String),
    what: What,
    numbers: std::ops::Range<u32>,
    retries: u32,
) -> Started {
    let numbers = numbers.into_iter();
    let start = |number| {
        let item = (tally.clone(), gate.clone(), number);
        let handle = match what {
            What::Pass => pool.call(pass).retries(retries).apply_async(item),
            What::TakeAMoment => pool.call(take_a_moment).retries(retries).apply_async(item),
            What::BeQuick => pool.call(be_quick).retries(retries).apply_async(item),
        };
        (number, handle)
    };
    numbers.map(start).collect()
}

/// All have values.
pub(crate) fn assert_values(started: Started) {
    for (number, handle) in started {
        assert_eq!(handle.get(), Ok(number));
    }
}

/// Those of these numbers, in their order, were lost with this machine, and all others have values.
pub(crate) fn assert_lost(started: Started, lost: &[u32], machine: &str) {
    let mut found = Vec::new();
    for (number, handle) in started {
        match handle.get() {
            Ok(value) => assert_eq!(value, number),
            Err(error) => {
                assert!(error.is_worker_lost(), "{number}: {error}");
                assert_eq!(error.machine(), Some(machine), "{number}: {error}");
                assert!(error.to_string().contains(machine), "{error}");
                found.push(number);
            }
        }
    }
    assert_eq!(found, lost);
}
