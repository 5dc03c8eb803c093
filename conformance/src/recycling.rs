//! Workers that are replaced when they have run this many tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use procpool::{ExitReason, Pool, TaskErrorKind, worker};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate, Tally};
use crate::hooks::Diary;
use crate::procfs::{signal, wait_for_death, wait_until, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        pids_change_and_results_stay_right,
        a_chunk_counts_as_one_task,
        recycling_strands_no_task,
        recycling_loses_no_result_of_several_threads,
        closing_while_workers_are_replaced,
        terminating_while_workers_are_replaced,
        a_finalizer_runs_in_every_worker_that_retires,
        a_replacement_that_cannot_start_fails_the_tasks,
        a_replacement_is_ready_before_the_old_worker_goes,
        a_replacement_that_is_killed_while_it_waits_is_replaced,
        an_old_worker_that_is_killed_has_its_replacement,
        terminating_while_a_replacement_gets_ready,
        closing_while_a_replacement_waits,
        slow_finalizers_do_not_pile_up,
        descriptors_for_one_worker_are_enough,
    ]
}

fn who(x: u64) -> (u64, u32) {
    (x * x, std::process::id())
}

/// Every worker runs as many tasks as it may and no more, another one goes on, and the results
/// are those of the sequential map, in order.
fn pids_change_and_results_stay_right<S: Processes>() {
    for limit in [1, 3] {
        let pool = S::builder().processes(2).max_tasks_per_child(limit).build();
        let results = pool.call(who).chunksize(1).map(0..60).unwrap();
        let mut tasks = BTreeMap::new();
        for (x, (y, pid)) in (0..).zip(results) {
            assert_eq!(y, x * x);
            *tasks.entry(pid).or_insert(0) += 1;
        }
        assert!(tasks.len() as u64 >= 60 / limit, "{tasks:?}");
        assert!(tasks.values().all(|tasks| *tasks <= limit), "{tasks:?}");
    }
}

/// As in Python: a worker of two tasks runs two chunks, however many items they have.
fn a_chunk_counts_as_one_task<S: Processes>() {
    let pool = S::builder().processes(1).max_tasks_per_child(2).build();
    // (A chunk of `map` goes with what is in it when a worker idles and its reader is kept
    // waiting.)
    let handle = pool.call(who).chunksize(10).map_async(0..60);
    let results = handle.get().unwrap();
    let pids: BTreeSet<u32> = results.iter().map(|result| result.1).collect();
    assert_eq!(pids.len(), 3);
    for chunk in results.chunks(20) {
        assert!(chunk.iter().all(|result| result.1 == chunk[0].1));
    }
}

/// Of many tasks that were submitted at once, each ends with its value although every worker
/// retires after one.
fn recycling_strands_no_task<S: Processes>() {
    let pool = S::builder().processes(3).max_tasks_per_child(1).build();
    let handles: Vec<_> = (0..150).map(|x| pool.apply_async(who, x)).collect();
    for (x, handle) in (0..).zip(handles) {
        assert_eq!(handle.get().unwrap().0, x * x);
    }
    wait_until(|| workers(&pool).len() == 3);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// The same for threads that each wait for one task after the other.
fn recycling_loses_no_result_of_several_threads<S: Processes>() {
    let pool = &S::builder().processes(2).max_tasks_per_child(2).build();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for x in thread * 1000..thread * 1000 + 30 {
                    assert_eq!(pool.apply(who, x).unwrap().0, x * x);
                }
            });
        }
    });
}

/// `close` while workers come and go: all tasks end with their values, all workers leave.
fn closing_while_workers_are_replaced<S: Processes>() {
    for tasks in 0..20 {
        let pool = S::builder().processes(2).max_tasks_per_child(1).build();
        let handles: Vec<_> = (0..tasks).map(|x| pool.apply_async(who, x)).collect();
        pool.close();
        pool.join().unwrap();
        assert!(workers(&pool).is_empty());
        let mut pids = Vec::new();
        for (x, handle) in (0..).zip(handles) {
            let (y, pid) = handle.get().unwrap();
            assert_eq!(y, x * x);
            pids.push(pid);
        }
        wait_for_death(&pids);
    }
}

/// `terminate` while workers come and go: every task ends, all workers are gone.
fn terminating_while_workers_are_replaced<S: Processes>() {
    for tasks in 0..20 {
        let pool = S::builder().processes(2).max_tasks_per_child(1).build();
        let handles: Vec<_> = (0..2 * tasks).map(|x| pool.apply_async(who, x)).collect();
        if let Some(handle) = handles.get(tasks as usize) {
            handle.wait();
        }
        pool.terminate();
        pool.join().unwrap();
        for (x, handle) in (0..).zip(handles) {
            match handle.get() {
                Ok((y, _)) => assert_eq!(y, x * x),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
    }
}

/// The finalizer runs once in each worker that leaves in good order, after its last task: at a
/// recycling and at `close`, not in one that is killed.
fn a_finalizer_runs_in_every_worker_that_retires<S: Processes>() {
    static TICKET: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    fn start(ticket: String) {
        file_barrier::add(&ticket, format!("start {}", std::process::id()));
        TICKET.set(ticket).expect("it runs once in a worker");
    }
    fn task(_: u64) -> u32 {
        file_barrier::add(
            TICKET.get().unwrap(),
            format!("task {}", std::process::id()),
        );
        std::process::id()
    }
    fn end() {
        file_barrier::add(TICKET.get().unwrap(), format!("end {}", std::process::id()));
    }
    let tally = Tally::new();
    let builder = S::builder().processes(2).max_tasks_per_child(2);
    let builder = builder.initializer(start, tally.ticket()).finalizer(end);
    let pool = builder.build();
    pool.call(task).chunksize(1).map(0..10).unwrap();
    pool.close();
    pool.join().unwrap();
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in tally.lines() {
        let (what, pid) = line.split_once(' ').unwrap();
        lives
            .entry(pid.to_owned())
            .or_default()
            .push(what.to_owned());
    }
    assert!(lives.len() >= 5);
    for (pid, life) in lives {
        assert_eq!(life[0], "start", "{pid}: {life:?}");
        assert_eq!(life[life.len() - 1], "end", "{pid}: {life:?}");
        assert!(life[1..life.len() - 1].iter().all(|what| what == "task"));
    }

    let tally = Tally::new();
    let builder = S::builder().processes(1);
    let pool = builder
        .initializer(start, tally.ticket())
        .finalizer(end)
        .build();
    let pid = pool.apply(task, 1).unwrap();
    pool.terminate();
    pool.join().unwrap();
    wait_for_death(&[pid]);
    assert_eq!(
        tally.lines(),
        [format!("start {pid}"), format!("task {pid}")]
    );
}

/// When the first workers start but no replacement does, the tasks that are left fail, with the
/// reason, and so do all later ones.
fn a_replacement_that_cannot_start_fails_the_tasks<S: Processes>() {
    fn first_only(_: ()) {
        let worker = worker::current().expect("an initializer runs in a worker");
        assert!(worker.generation() == 0, "no second generation");
    }
    let builder = S::builder().processes(2).max_tasks_per_child(1);
    let pool = builder.initializer(first_only, ()).build();
    let handles: Vec<_> = (0..20).map(|x| pool.apply_async(who, x)).collect();
    let (good, bad): (Vec<_>, Vec<_>) = handles
        .into_iter()
        .map(|handle| handle.get())
        .partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (2, 18));
    let late = pool.apply(who, 1).unwrap_err();
    for error in bad.into_iter().map(Result::unwrap_err).chain([late]) {
        assert_eq!(error.kind(), TaskErrorKind::Initializer, "{error}");
        assert_eq!(error.panic_message(), Some("no second generation"));
    }
}

fn pass(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    std::process::id()
}

/// A pool of one worker that is replaced after each task, and the tally of its workers'
/// initializers.
fn short_lived<S: Processes>() -> (S::Pool, Tally) {
    let tally = Tally::new();
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let builder = builder.initializer(
        |ticket: String| file_barrier::add(&ticket, std::process::id()),
        tally.ticket(),
    );
    (builder.build(), tally)
}

/// While the last task of a worker runs, the next worker starts and runs its initializer; then it
/// waits, and has the next task as soon as the old one is done.
fn a_replacement_is_ready_before_the_old_worker_goes<S: Processes>() {
    let (pool, initialized) = short_lived::<S>();
    let gates: Vec<Gate> = (0..4).map(|_| Gate::new()).collect();
    let tasks: Vec<_> = (gates.iter().map(Gate::ticket))
        .map(|ticket| pool.apply_async(pass, ticket))
        .collect();
    for (number, gate) in gates.iter().enumerate() {
        let here = gate.wait_for(1);
        if number + 1 < gates.len() {
            wait_until(|| initialized.count() == number + 2);
            assert!(
                gates[number + 1].arrivals().is_empty(),
                "one task at a time"
            );
        }
        assert_eq!(initialized.lines()[number], here[0].to_string());
        gate.open();
    }
    let pids: BTreeSet<u32> = tasks.into_iter().map(|task| task.get().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    wait_until(|| workers(&pool).len() == 1);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// The pid of the worker that waits until this one is done.
fn successor(pool: &impl Pool, of: u32, initialized: &Tally) -> u32 {
    let mut found = None;
    wait_until(|| {
        let lines = initialized.lines();
        found = workers(pool)
            .into_iter()
            .find(|pid| *pid != of && lines.contains(&pid.to_string()));
        found.is_some()
    });
    found.unwrap()
}

fn a_replacement_that_is_killed_while_it_waits_is_replaced<S: Processes>() {
    let (pool, initialized) = short_lived::<S>();
    let gate = Gate::new();
    let tasks = [0, 1].map(|_| pool.apply_async(pass, gate.ticket()));
    let here = gate.wait_for(1)[0];
    let mut killed = Vec::new();
    for _ in 0..5 {
        let pid = successor(&pool, here, &initialized);
        assert!(!killed.contains(&pid));
        signal(pid, Signal::KILL);
        wait_for_death(&[pid]);
        wait_until(|| !workers(&pool).contains(&pid));
        killed.push(pid);
    }
    let last = successor(&pool, here, &initialized);
    gate.open();
    assert_eq!(tasks.map(|task| task.get().unwrap()), [here, last]);
}

/// It is there already, so nobody waits for a launch.
fn an_old_worker_that_is_killed_has_its_replacement<S: Processes>() {
    let (pool, initialized) = short_lived::<S>();
    let gate = Gate::new();
    let tasks = [0, 1].map(|_| pool.apply_async(pass, gate.ticket()));
    let here = gate.wait_for(1)[0];
    let next = successor(&pool, here, &initialized);
    signal(here, Signal::KILL);
    assert_eq!(gate.wait_for(2)[1], next);
    gate.open();
    let [lost, kept] = tasks.map(|task| task.get());
    assert!(lost.unwrap_err().is_worker_lost());
    assert_eq!(kept.unwrap(), next);
}

fn terminating_while_a_replacement_gets_ready<S: Processes>() {
    let gate = Gate::new();
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let builder = builder.initializer(
        |ticket: String| {
            if worker::current().is_some_and(|worker| worker.generation() > 0) {
                file_barrier::pass(&ticket);
            }
        },
        gate.ticket(),
    );
    let pool = builder.build();
    pool.apply(who, 1).unwrap();
    let next = gate.wait_for(1);
    pool.terminate();
    pool.join().unwrap();
    wait_for_death(&next);
}

/// It leaves as the others do, and nobody waits for it.
fn closing_while_a_replacement_waits<S: Processes>() {
    let (pool, initialized) = short_lived::<S>();
    let gate = Gate::new();
    let task = pool.apply_async(pass, gate.ticket());
    let here = gate.wait_for(1)[0];
    let next = successor(&pool, here, &initialized);
    pool.close();
    gate.open();
    pool.join().unwrap();
    assert_eq!(task.get().unwrap(), here);
    wait_for_death(&[here, next]);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// There are never more than two processes for each place, one of them on its way out.
fn slow_finalizers_do_not_pile_up<S: Processes>() {
    static TICKET: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let gate = Gate::new();
    let builder = S::builder().processes(1).max_tasks_per_child(1);
    let builder = builder
        .initializer(
            |ticket: String| TICKET.set(ticket).expect("it runs once in a worker"),
            gate.ticket(),
        )
        .finalizer(|| file_barrier::pass(TICKET.get().unwrap()));
    let pool = builder.build();
    let tasks: Vec<_> = (0..4).map(|x| pool.apply_async(who, x)).collect();
    // One goes on while the finalizer of another one is at the gate.
    gate.wait_for(2);
    assert_eq!(gate.arrivals().len(), 2);
    assert_eq!(pool.stats().workers_started, 2);
    gate.open();
    for task in tasks {
        task.get().unwrap();
    }
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: as_few_descriptors_as_can_be]
}

/// A pool with the lowest limit of descriptors with which there is one: it leaves none for another
/// worker.
fn with_few_descriptors<B: Builder>(builder: impl Fn() -> B) -> B::Pool {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = descriptors();
    let mut limit = 8;
    loop {
        let few = Rlimit {
            current: Some(limit),
            maximum,
        };
        setrlimit(Resource::Nofile, few).expect("a lower limit is always allowed");
        if let Ok(pool) = builder().processes(1).try_build() {
            return pool;
        }
        wait_until(|| descriptors() <= before);
        limit += 1;
    }
}

fn as_few_descriptors_as_can_be<S: Processes>() {
    let pool = with_few_descriptors(|| S::builder().max_tasks_per_child(1));
    // Long enough for several attempts to start another one meanwhile.
    let slowly = |x: u64| {
        std::thread::sleep(Duration::from_millis(150));
        who(x).1
    };
    let pids: BTreeSet<u32> = (0..3).map(|x| pool.apply(slowly, x).unwrap()).collect();
    assert_eq!(pids.len(), 3);
    drop(pool);
    let diary = Diary::default();
    let age = Duration::from_millis(20);
    let pool = with_few_descriptors(|| diary.of(S::builder().max_age(age)));
    wait_until(|| {
        let ends = diary.reasons();
        ends.iter()
            .filter(|end| **end == ExitReason::MaxAge)
            .count()
            >= 3
    });
    pool.apply(who, 1).unwrap();
}

/// Where a worker's replacement cannot be started beside it, the worker goes first, as it would
/// have to.
fn descriptors_for_one_worker_are_enough<S: Processes>() {
    assert_eq!(again::<S>("as_few_descriptors_as_can_be").lines(), [""; 0]);
}
