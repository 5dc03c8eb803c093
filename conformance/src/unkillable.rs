//! Workers that do not die when they are killed: here because they are traced, so that nobody but
//! the tracer is notified of their end. Outcomes come all the same.

use std::path::Path;
use std::time::Duration;

use nix::sys::ptrace;
use procpool::dump::WorkerState;
use procpool::{ExitReason, Pool, TaskErrorKind, TaskHandle, worker};
use rustix::process::{PTracer, Signal, set_ptracer, setsid};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{signal, wait_until, workers};
use crate::program::{Program, Started, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_deadline_needs_no_death,
        a_death_that_nobody_reports_is_one,
        what_was_finished_before_counts,
        a_task_that_is_killed_needs_no_death,
        a_task_is_run_again_before_the_death,
        a_pool_that_is_terminated_needs_no_death,
        a_pool_that_is_dropped_needs_no_death,
        a_closed_pool_ends_without_a_death,
        a_failing_initializer_needs_no_death,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: traces]
}

/// Long enough for a quick task on the slowest machine, and for nobody to wait for it.
const LIMIT: Duration = Duration::from_millis(300);
/// Whom the tracer is to trace.
const TRACEE: &str = "CONFORMANCE_TRACEE";

/// A process that traces another one, until it is killed or dropped.
struct Tracer {
    process: Started,
    tracee: u32,
}

impl Tracer {
    /// Traces a pool's one worker. `None`: this machine does not allow that.
    fn of<S: Processes>(pool: &impl Pool) -> Option<Self> {
        let allow = |_: u8| set_ptracer(PTracer::Any).is_ok();
        // It fails where there is nothing to be allowed.
        let _ = pool.apply(allow, 0).unwrap();
        Self::of_process::<S>(workers(pool)[0])
    }

    fn of_process<S: Processes>(tracee: u32) -> Option<Self> {
        let tracer = again::<S>("traces").env(TRACEE, tracee.to_string());
        let mut process = tracer.start();
        let line = process.line();
        if line != "traced" {
            eprintln!("skipped: processes cannot be traced here: {line}");
            return None;
        }
        Some(Self { process, tracee })
    }

    /// Whether the worker is not gone.
    fn holds(&self) -> bool {
        exists(self.tracee)
    }

    fn let_go(&mut self) {
        self.process.kill();
    }
}

/// A task that waits at this gate, and is there.
fn at_gate(pool: &impl Pool, gate: &Gate) -> TaskHandle<()> {
    let handle = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    handle
}

/// In the tracer.
#[allow(
    clippy::extra_unused_type_parameters,
    reason = "a program, like the others"
)]
fn traces<S: Processes>() {
    let tracee: i32 = std::env::var(TRACEE).unwrap().parse().unwrap();
    // Nobody's group is killed with it.
    let _ = setsid();
    let traced = ptrace::seize(nix::unistd::Pid::from_raw(tracee), ptrace::Options::empty());
    match traced {
        Ok(()) => println!("traced"),
        Err(error) => println!("{error}"),
    }
    loop {
        std::thread::park();
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn never(_: u64) -> u64 {
    loop {
        std::thread::park();
    }
}

/// What waited for the worker's death gets its outcome; another worker has its place; it is
/// counted and named as long as it is there, and no longer.
fn a_deadline_needs_no_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(mut tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let error = pool.call(never).timeout(LIMIT).apply(1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::TimedOut);
    assert_eq!(error.worker().map(|it| it.pid()), Some(tracer.tracee));
    assert!(tracer.holds());
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    let stats = pool.stats();
    assert_eq!(stats.workers_terminating, 1);
    assert_eq!(stats.ended_for(ExitReason::Deadline), 0);
    let dump = pool.dump();
    let named = dump
        .workers
        .iter()
        .find(|worker| worker.info.as_ref().map(|info| info.pid()) == Some(tracer.tracee))
        .expect("it is named");
    assert_eq!(named.state, WorkerState::Terminating);
    assert!(dump.to_string().contains("dying"), "{dump}");
    tracer.let_go();
    wait_until(|| pool.stats().workers_terminating == 0);
    assert!(!tracer.holds(), "it was reaped");
    assert_eq!(pool.stats().ended_for(ExitReason::Deadline), 1);
    assert_eq!(pool.dump().workers.len(), 1);
}

/// Somebody else kills it, and only the tracer is told of its end. How it died is to be seen.
fn a_death_that_nobody_reports_is_one<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let gate = Gate::new();
    let handle = at_gate(&pool, &gate);
    signal(tracer.tracee, Signal::KILL);
    let error = handle.get().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost);
    assert_eq!(error.signal(), Some(9), "{error}");
    assert!(tracer.holds());
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

/// The items of a chunk before the one that takes too long have their values, and those after it
/// run elsewhere.
fn what_was_finished_before_counts<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let runs = Tally::new();
    let items = (0..6).map(|item| (item, runs.ticket()));
    let run = |(item, ticket): (u64, String)| {
        file_barrier::add(&ticket, item);
        if item == 2 {
            never(item);
        }
        item
    };
    let call = pool.call(run).timeout(LIMIT).chunksize(6);
    let outcomes = call.try_map(items);
    for (item, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(value) => assert_eq!(value, item),
            Err(error) => {
                let fate = (item, error.kind());
                assert_eq!(fate, (2, TaskErrorKind::TimedOut), "{error}");
            }
        }
    }
    assert!(tracer.holds());
    let mut lines = runs.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1", "2", "3", "4", "5"], "each has run once");
}

fn a_task_that_is_killed_needs_no_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let gate = Gate::new();
    let handle = at_gate(&pool, &gate);
    let behind = pool.apply_async(|x: u64| x, 7);
    handle.kill();
    assert_eq!(handle.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    assert_eq!(behind.get().unwrap(), 7);
    assert!(tracer.holds());
}

/// The worker that is not gone runs nothing any more.
fn a_task_is_run_again_before_the_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let run = |(tracee, item): (u32, u64)| {
        if std::process::id() == tracee {
            never(item);
        }
        item
    };
    let call = pool.call(run).timeout(LIMIT).retries(1);
    assert_eq!(call.apply((tracer.tracee, 5)).unwrap(), 5);
    assert!(tracer.holds());
}

fn a_pool_that_is_terminated_needs_no_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    let gate = Gate::new();
    let handle = at_gate(&pool, &gate);
    pool.terminate();
    assert_eq!(handle.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    assert!(!pool.join_timeout(Duration::from_millis(1)).unwrap());
    pool.join().unwrap();
    assert!(tracer.holds(), "it was not waited for");
}

/// What is left of it goes when it can.
fn a_pool_that_is_dropped_needs_no_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(mut tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    drop(pool);
    assert!(tracer.holds(), "it was not waited for");
    tracer.let_go();
    wait_until(|| {
        // The launch of a worker looks for what is left of others.
        drop(S::pool(1));
        !tracer.holds()
    });
}

fn a_closed_pool_ends_without_a_death<S: Processes>() {
    let pool = S::pool(1);
    let Some(tracer) = Tracer::of::<S>(&pool) else {
        return;
    };
    pool.close();
    pool.join().unwrap();
    assert!(tracer.holds(), "it was not waited for");
}

/// A replacement that cannot be prepared is killed, and does not go.
fn a_failing_initializer_needs_no_death<S: Processes>() {
    let pids = Tally::new();
    let gate = Gate::new();
    let initialize = |(pids, ticket): (String, String)| {
        if worker::current().is_some_and(|worker| worker.generation() == 0) {
            return;
        }
        let _ = set_ptracer(PTracer::Any);
        file_barrier::add(&pids, std::process::id());
        file_barrier::pass(&ticket);
        panic!("it cannot begin");
    };
    let pool = S::builder()
        .processes(1)
        .initializer(initialize, (pids.ticket(), gate.ticket()))
        .build();
    let crash = pool.apply(|()| -> () { std::process::abort() }, ());
    assert!(crash.unwrap_err().is_worker_lost());
    let first = gate.wait_for(1)[0];
    let Some(tracer) = Tracer::of_process::<S>(first) else {
        return;
    };
    let handle = pool.apply_async(|x: u64| x, 1);
    gate.open();
    assert_eq!(handle.get().unwrap_err().kind(), TaskErrorKind::Initializer);
    assert!(tracer.holds());
}
