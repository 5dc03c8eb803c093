//! What the user learns of workers: that they start, and how and why they end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use procpool::{ExitReason, Pool, WorkerExit, WorkerInfo};
use rustix::process::Signal;

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate};
use crate::procfs::{signal, wait_until};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        every_worker_that_starts_ends_once,
        a_death_has_its_reason,
        a_hook_that_panics_harms_nothing,
        a_hook_can_use_the_pool,
        join_waits_for_hooks,
    ]
}

/// What hooks were given, in order.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<FunctionId>>>);

/// A worker that has started, or how it has ended.
type FunctionId = (WorkerInfo, Option<WorkerExit>);

impl Diary {
    /// A builder whose pool keeps the diary.
    pub(crate) fn of<B: Builder>(&self, builder: B) -> B {
        let (starts, deaths) = (self.clone(), self.clone());
        builder
            .on_worker_start(move |worker| starts.add(worker, None))
            .on_worker_death(move |worker, end| deaths.add(worker, Some(*end)))
    }

    fn add(&self, worker: &WorkerInfo, end: Option<WorkerExit>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push((worker.clone(), end));
    }

    pub(crate) fn entries(&self) -> Vec<FunctionId> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clone()
    }

    /// The workers that have started, in order.
    pub(crate) fn started(&self) -> Vec<WorkerInfo> {
        let entries = self.entries().into_iter();
        let starts = entries.filter(|(_, end)| end.is_none());
        starts.map(|(worker, _)| worker).collect()
    }

    /// Why workers have ended, in order.
    pub(crate) fn reasons(&self) -> Vec<ExitReason> {
        let entries = self.entries().into_iter();
        entries.filter_map(|(_, end)| Some(end?.reason())).collect()
    }

    /// Waits until this many workers have ended, and says why they have.
    pub(crate) fn wait_for_ends(&self, count: usize) -> Vec<ExitReason> {
        wait_until(|| self.reasons().len() >= count);
        self.reasons()
    }
}

fn who((): ()) -> u32 {
    std::process::id()
}

/// Each worker is reported twice: when it starts, before it runs anything, and when it is gone.
fn every_worker_that_starts_ends_once<S: Processes>() {
    let diary = Diary::default();
    let pool = diary
        .of(S::builder().processes(2).max_tasks_per_child(2))
        .build();
    let mut pids: Vec<u32> = (0..10).map(|_| pool.apply(who, ()).unwrap()).collect();
    pool.close();
    pool.join().unwrap();
    let started = diary.started();
    let mut ended = Vec::new();
    for (worker, end) in diary.entries() {
        assert!(started.contains(&worker));
        match end {
            None => assert!(!ended.contains(&worker), "it has ended and starts"),
            Some(end) => {
                assert!(!ended.contains(&worker), "it ends twice");
                assert_eq!(end.exit_code(), Some(0));
                assert!(end.reason().is_planned(), "{end}");
                ended.push(worker);
            }
        }
    }
    assert_eq!(started.len(), ended.len());
    pids.retain(|pid| !started.iter().any(|worker| worker.pid() == *pid));
    assert!(pids.is_empty(), "nobody was told of these");
    assert_eq!(
        started.len() as u64,
        pool.stats().workers_started,
        "each once"
    );
}

fn a_death_has_its_reason<S: Processes>() {
    fn exit(code: i32) {
        std::process::exit(code)
    }
    let diary = Diary::default();
    let pool = diary.of(S::builder().processes(1)).build();
    pool.apply(exit, 7).unwrap_err();
    diary.wait_for_ends(1);
    let gate = Gate::new();
    let timed = pool.call(|ticket: String| file_barrier::pass(&ticket));
    let timed = timed.timeout(Duration::from_millis(1)).apply(gate.ticket());
    assert!(timed.unwrap_err().is_timeout());
    diary.wait_for_ends(2);
    // The first may have been killed before it came to its gate.
    let gate = Gate::new();
    let killed = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    killed.kill();
    diary.wait_for_ends(3);
    signal(pool.apply(who, ()).unwrap(), Signal::ABORT);
    diary.wait_for_ends(4);
    pool.apply(who, ()).unwrap();
    pool.terminate();
    pool.join().unwrap();
    let ends: Vec<_> = diary
        .entries()
        .into_iter()
        .filter_map(|row| row.1)
        .collect();
    assert_eq!(
        diary.reasons(),
        [
            ExitReason::Crashed,
            ExitReason::Deadline,
            ExitReason::Cancelled,
            ExitReason::Crashed,
            ExitReason::Terminated
        ]
    );
    assert_eq!(ends[0].exit_code(), Some(7));
    let signals: Vec<_> = ends.iter().map(WorkerExit::signal).collect();
    assert_eq!(signals, [None, Some(9), Some(9), Some(6), Some(9)]);
}

fn a_hook_that_panics_harms_nothing<S: Processes>() {
    let diary = Diary::default();
    let told = diary.clone();
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let builder = builder.on_worker_start(|_| panic!("a hook"));
    let builder = builder.on_worker_death(move |worker, end| {
        told.add(worker, Some(*end));
        panic!("another one");
    });
    let pool = builder.build();
    for _ in 0..3 {
        pool.apply(who, ()).unwrap();
    }
    assert_eq!(diary.wait_for_ends(3)[..3], [ExitReason::MaxTasks; 3]);
}

/// A hook may do what a callback may, and hears of the same worker only when the first call is
/// over.
fn a_hook_can_use_the_pool<S: Processes>() {
    let shared: Arc<Mutex<Option<Arc<S::Pool>>>> = Arc::default();
    let diary = Diary::default();
    let (handle, told) = (shared.clone(), diary.clone());
    let builder = S::builder()
        .processes(1)
        .on_worker_death(move |worker, end| {
            let pool = handle.lock().unwrap().take();
            if let Some(pool) = pool {
                assert_ne!(pool.apply(who, ()).unwrap(), worker.pid());
            }
            told.add(worker, Some(*end));
        });
    let pool = Arc::new(builder.build());
    *shared.lock().unwrap() = Some(pool.clone());
    signal(pool.apply(who, ()).unwrap(), Signal::KILL);
    assert_eq!(diary.wait_for_ends(1), [ExitReason::Crashed]);
}

fn join_waits_for_hooks<S: Processes>() {
    let diary = Diary::default();
    let gate = Gate::new();
    let (told, ticket) = (diary.clone(), gate.ticket());
    let builder = S::builder().processes(2);
    let builder = builder.on_worker_death(move |worker, end| {
        file_barrier::pass(&ticket);
        told.add(worker, Some(*end));
    });
    let pool = builder.build();
    pool.close();
    gate.wait_for(1);
    assert!(!pool.join_timeout(Duration::from_millis(20)).unwrap());
    gate.open();
    pool.join().unwrap();
    assert_eq!(diary.reasons(), [ExitReason::Closed; 2]);
}
