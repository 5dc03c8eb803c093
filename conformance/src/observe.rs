//! What a pool reports of itself: its statistics, and what its workers are at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use procpool::dump::{Dump, WorkerDump, WorkerState};
use procpool::{ExitReason, Pool, Stateless, TaskErrorKind};
use rustix::process::Signal;

use crate::backends::{Builder, Processes, Subject};
use crate::failure_modes::{Fate, strike};
use crate::file_barrier::{self, Gate};
use crate::procfs::{signal, wait_until, workers};
use crate::retry::always;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_pool_can_be_asked_at_any_time,
        each_item_counts_once_at_any_time,
        failures_are_counted_for_what_they_are,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        items_are_counted_by_outcome,
        each_item_counts_once_though_workers_die,
        an_initializer_counts_as_no_item,
        what_has_come_of_a_chunk_still_runs,
        errors_that_are_returned_count_if_asked,
        ends_are_counted_by_reason,
        bytes_are_counted_both_ways,
        each_worker_has_its_own_figures,
        what_runs_counts_as_busy,
        a_dump_says_who_is_idle,
        a_dump_says_what_is_stuck,
        a_dump_says_since_when,
        a_stopped_worker_has_no_stack,
        a_dump_harms_no_task,
        a_dump_harms_no_task_that_unwinds,
        a_dump_leaves_system_calls_and_errors_alone,
    ]
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn each_item_counts_once_at_any_time<S: Subject>() {
    counts_add_up(&S::pool(2), |x: u64| match x % 7 {
        0 => Err(x),
        1 => panic!("its fate"),
        _ => Ok(x),
    });
}

fn each_item_counts_once_though_workers_die<S: Processes>() {
    counts_add_up(&S::pool(2), one_of_each_fate);
}

/// What a worker does before its first item is none.
fn an_initializer_counts_as_no_item<S: Processes>() {
    let initializer = |()| thread::sleep(Duration::from_millis(1));
    let builder = S::builder().processes(2).initializer(initializer, ());
    let pool = builder.env("SETTINGS", "come first").nice(0).build();
    counts_add_up(&pool, one_of_each_fate);
}

/// Until the chunk has ended. Then its items do, together.
fn what_has_come_of_a_chunk_still_runs<S: Processes>() {
    // More than a ring holds, so that it is read while the next item runs.
    let task = |(ticket, waits): (String, bool)| {
        if waits {
            pass(ticket);
        }
        vec![7_u8; 8 << 20]
    };
    let pool = S::pool(1);
    let gate = Gate::new();
    let items = [false, false, true].map(|waits| (gate.ticket(), waits));
    let handle = pool.call(task).chunksize(3).map_async(items);
    gate.wait_for(1);
    // Some of it has come.
    wait_until(|| pool.stats().workers[0].queued < 3);
    let stats = pool.stats();
    let counts = (
        stats.submitted,
        stats.queued,
        stats.running,
        stats.succeeded,
    );
    assert_eq!(counts, (3, 0, 3, 0));
    gate.open();
    assert_eq!(handle.get().unwrap().len(), 3);
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running, stats.succeeded), (0, 0, 3));
}

fn one_of_each_fate(x: u64) -> Result<u64, u64> {
    match x % 7 {
        0 => Err(x),
        1 => panic!("its fate"),
        2 if x % 97 == 2 => std::process::abort(),
        _ => Ok(x),
    }
}

/// While items wait, run, fail, are judged, are tried again and cancelled.
fn counts_add_up<P: Pool + Sync>(pool: &P, fate: impl Fn(u64) -> Result<u64, u64> + Stateless) {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::SeqCst) {
                let stats = pool.stats();
                let counted = stats.succeeded + stats.failed + stats.queued + stats.running;
                assert_eq!(stats.submitted, counted, "{stats}");
            }
        });
        for round in 0..10 {
            let call = pool.call(fate).retries(1).chunksize(5);
            let call = call.retry_if(always).retry_errors(|_: &u64| true);
            let call = call.backoff(Duration::from_micros(round * 100));
            let kept = call.map_async(round * 40..round * 40 + 40);
            let cancelled = pool.map_async(fate, 0..40);
            let lazy: Vec<_> = pool.imap(fate, round * 20..round * 20 + 20).collect();
            assert_eq!(lazy.len(), 20);
            cancelled.cancel();
            kept.wait();
        }
        has_ended.store(true, Ordering::SeqCst);
    });
    // None is left over.
    wait_until(|| pool.stats().queued + pool.stats().running == 0);
}

/// Among values of the same chunk, after a second attempt, and when nothing is taken any more.
fn failures_are_counted_for_what_they_are<S: Subject>() {
    let every_tenth = |x: u64| -> u64 {
        assert!(!x.is_multiple_of(10), "its fate");
        x
    };
    let pool = S::pool(2);
    let results = pool.call(every_tenth).chunksize(15).try_map(0..30);
    assert_eq!(results.iter().filter(|it| it.is_err()).count(), 3);
    let counted = || {
        let stats = pool.stats();
        (stats.submitted, stats.succeeded, stats.failed)
    };
    assert_eq!(counted(), (30, 27, 3));
    let call = pool.call(every_tenth).chunksize(15).retries(2);
    let results = call.retry_if(always).try_map(0..30);
    assert_eq!(results.iter().filter(|it| it.is_err()).count(), 3);
    assert_eq!(counted(), (60, 54, 6), "an attempt is no item");
    pool.close();
    assert!(pool.apply(every_tenth, 1).unwrap_err().is_closed());
    assert_eq!(counted(), (61, 54, 7));
    let stats = pool.stats();
    let kinds = [TaskErrorKind::Panicked, TaskErrorKind::Closed];
    assert_eq!(kinds.map(|kind| stats.failed_as(kind)), [6, 1], "{stats}");
}

fn errors_that_are_returned_count_if_asked<S: Processes>() {
    let pool = S::pool(1);
    let even = |x: u64| x.is_multiple_of(2).then_some(x).ok_or(());
    pool.map(even, 0..10).unwrap();
    let stats = pool.stats();
    assert_eq!(
        (stats.succeeded, stats.failed, stats.errors_returned),
        (10, 0, 0)
    );
    pool.call(even).count_errors().map(0..10).unwrap();
    pool.call(even)
        .count_errors()
        .apply(1)
        .unwrap()
        .unwrap_err();
    let stats = pool.stats();
    assert_eq!(
        (stats.succeeded, stats.failed, stats.errors_returned),
        (15, 6, 6)
    );
    assert!(stats.failures.is_empty(), "none has lost its value");
    assert!(stats.to_string().contains("6 failed, 6 of them"), "{stats}");
}

/// Whatever it knows: nothing of it panics or hangs.
fn a_pool_can_be_asked_at_any_time<S: Subject>() {
    let pool = S::pool(2);
    assert_eq!(pool.map(|x: u64| x, 0..100).unwrap().len(), 100);
    let ask = || (pool.stats().to_string(), pool.dump().to_string());
    let (stats, dump) = ask();
    assert!(stats.contains("items"), "{stats}");
    assert!(dump.contains("workers"), "{dump}");
    pool.terminate();
    ask();
    pool.join().unwrap();
    ask();
}

fn items_are_counted_by_outcome<S: Processes>() {
    let pool = S::pool(2);
    let task = |fate: Option<Fate>| {
        if let Some(fate) = fate {
            strike(fate).unwrap();
        }
    };
    let fates = [None, Some(Fate::Panic), None, Some(Fate::Kill), None, None];
    let _ = pool.try_map(task, fates);
    let limit = Duration::from_millis(50);
    let gate = Gate::new();
    let late = pool.call(pass).timeout(limit).apply(gate.ticket());
    assert!(late.unwrap_err().is_timeout());
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(2);
    handle.kill();
    assert!(handle.get().unwrap_err().is_cancelled());
    pool.close();
    assert!(pool.apply(task, None).unwrap_err().is_closed());
    pool.join().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.succeeded, stats.failed), (9, 4, 5));
    for kind in [
        TaskErrorKind::Panicked,
        TaskErrorKind::WorkerLost,
        TaskErrorKind::TimedOut,
        TaskErrorKind::Cancelled,
        TaskErrorKind::Closed,
    ] {
        assert_eq!(stats.failed_as(kind), 1, "{kind:?} in {stats}");
    }
    assert_eq!(stats.failures.values().sum::<u64>(), stats.failed);
}

fn ends_are_counted_by_reason<S: Processes>() {
    let pool = S::builder().processes(1).max_tasks_per_child(2).build();
    for _ in 0..4 {
        pool.apply(|(): ()| (), ()).unwrap();
    }
    let crash = pool.apply(|(): ()| strike(Fate::Abort).is_ok(), ());
    assert!(crash.unwrap_err().is_worker_lost());
    let gate = Gate::new();
    let limit = Duration::from_millis(50);
    let late = pool.call(pass).timeout(limit).apply(gate.ticket());
    assert!(late.unwrap_err().is_timeout());
    pool.apply(|(): ()| (), ()).unwrap();
    pool.close();
    pool.join().unwrap();
    let stats = pool.stats();
    assert_eq!(stats.ended_for(ExitReason::MaxTasks), 2, "{stats}");
    assert_eq!(stats.ended_for(ExitReason::Crashed), 1, "{stats}");
    assert_eq!(stats.ended_for(ExitReason::Deadline), 1, "{stats}");
    assert_eq!(stats.ended_for(ExitReason::Closed), 1, "{stats}");
    assert_eq!(
        stats.workers_ended.values().sum::<u64>(),
        stats.workers_started
    );
}

/// Also those of workers that are gone.
fn bytes_are_counted_both_ways<S: Processes>() {
    const LARGE: usize = 1 << 20;
    let pool = S::pool(1);
    pool.apply(|bytes: Vec<u8>| bytes.len(), vec![0; LARGE])
        .unwrap();
    let large = LARGE as u64;
    let stats = pool.stats();
    assert!((large..large + 4096).contains(&stats.bytes_sent), "{stats}");
    assert!((1..4096).contains(&stats.bytes_received), "{stats}");
    let _ = pool.apply(|(): ()| strike(Fate::Kill).is_ok(), ());
    pool.apply(|count: usize| vec![0_u8; count], LARGE).unwrap();
    pool.close();
    pool.join().unwrap();
    let stats = pool.stats();
    assert!((large..large + 8192).contains(&stats.bytes_sent), "{stats}");
    assert!(
        (large..large + 8192).contains(&stats.bytes_received),
        "{stats}"
    );
}

fn each_worker_has_its_own_figures<S: Processes>() {
    let pool = S::pool(2);
    let items = 1000;
    let pids = pool.map(|_: u64| std::process::id(), 0..items).unwrap();
    let stats = pool.stats();
    assert_eq!(stats.workers.len(), 2);
    for worker in &stats.workers {
        let done = pids.iter().filter(|pid| **pid == worker.pid()).count();
        assert_eq!(worker.items, done as u64, "{stats}");
        assert_eq!(worker.busy + worker.idle, worker.up, "{stats}");
        // One that has done nothing may have passed over what was taken back.
        assert!(worker.busy > Duration::ZERO || done == 0, "{stats}");
        assert_eq!(worker.queued, 0);
        assert!(worker.rss > Some(100_000), "{stats}");
    }
    assert_eq!(stats.workers.iter().map(|it| it.items).sum::<u64>(), items);
}

/// While the item runs, not only afterwards.
fn what_runs_counts_as_busy<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handles: Vec<_> = (0..3)
        .map(|_| pool.apply_async(pass, gate.ticket()))
        .collect();
    gate.wait_for(1);
    let limit = Duration::from_millis(20);
    wait_until(|| pool.stats().workers[0].busy > limit);
    let stats = pool.stats();
    assert_eq!(stats.workers[0].queued + stats.queued, 3, "{stats}");
    assert_eq!(stats.workers[0].items, 0, "{stats}");
    gate.open();
    for handle in handles {
        handle.get().unwrap();
    }
    assert_eq!(pool.stats().workers[0].items, 3);
}

/// The dump of a pool's only worker.
fn only(dump: &Dump) -> &WorkerDump {
    assert_eq!(dump.workers.len(), 1, "{dump}");
    &dump.workers[0]
}

fn a_dump_says_who_is_idle<S: Processes>() {
    let pool = S::pool(2);
    let pids = workers(&pool);
    let dump = pool.dump();
    assert_eq!(dump.queued, 0);
    for (worker, pid) in dump.workers.iter().zip(pids) {
        assert_eq!(worker.info.as_ref().map(|info| info.pid()), Some(pid));
        assert_eq!(worker.state, WorkerState::Idle, "{dump}");
        assert!(worker.task.is_none() && worker.stack.is_none(), "{dump}");
    }
    assert!(dump.to_string().contains("idle"), "{dump}");
}

#[inline(never)]
fn stuck_in_here(ticket: String) -> usize {
    file_barrier::pass(&ticket);
    ticket.len()
}

/// Its function, its item, what waits behind it, and the stack down to the function that is stuck.
fn a_dump_says_what_is_stuck<S: Processes>() {
    let pool = S::pool(1);
    let (open, closed) = (Gate::new(), Gate::new());
    open.open();
    let items = [open.ticket(), open.ticket(), closed.ticket(), open.ticket()];
    let handle = pool.call(stuck_in_here).chunksize(4).map_async(items);
    closed.wait_for(1);
    let dump = pool.dump();
    let worker = only(&dump);
    assert_eq!(worker.state, WorkerState::Running, "{dump}");
    let task = worker.task.as_ref().expect("it runs one");
    assert!(task.function.ends_with("stuck_in_here"), "{dump}");
    assert_eq!((task.index, task.done_before, task.chunk), (2, 2, 4));
    assert!(task.chunk_running_for.is_some(), "{dump}");
    assert_eq!(worker.waiting, 1, "{dump}");
    assert!(worker.kernel.is_some(), "{dump}");
    let stack = worker.stack.as_deref().expect("it was asked");
    assert!(stack.contains("stuck_in_here"), "{dump}");
    assert!(!stack.contains("on_signal"), "{dump}");
    closed.open();
    assert_eq!(handle.get().unwrap().len(), 4);
    assert_eq!(only(&pool.dump()).state, WorkerState::Idle);
}

/// Exactly, of an item with a timeout.
fn a_dump_says_since_when<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let long = Duration::from_secs(3600);
    let handle = pool.call(pass).timeout(long).apply_async(gate.ticket());
    gate.wait_for(1);
    let running_for = || {
        only(&pool.dump())
            .task
            .as_ref()
            .unwrap()
            .running_for
            .unwrap()
    };
    let first = running_for();
    wait_until(|| running_for() > first + Duration::from_millis(10));
    gate.open();
    handle.get().unwrap();
}

/// The wait for its stack has an end.
fn a_stopped_worker_has_no_stack<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    let pid = gate.wait_for(1)[0];
    signal(pid, Signal::STOP);
    let is_stopped = |worker: &WorkerDump| {
        let kernel = worker.kernel.as_ref().expect("it is alive");
        kernel.state.starts_with('T')
    };
    wait_until(|| is_stopped(only(&pool.dump())));
    let dump = pool.dump();
    assert!(only(&dump).stack.is_none(), "{dump}");
    assert_eq!(only(&dump).state, WorkerState::Running);
    signal(pid, Signal::CONT);
    wait_until(|| only(&pool.dump()).stack.is_some());
    gate.open();
    handle.get().unwrap();
}

/// Tasks that allocate, sleep, wait for children and compute are asked again and again.
fn a_dump_harms_no_task<S: Processes>() {
    let pool = &S::pool(2);
    let task = |x: u64| {
        let words: Vec<String> = (0..200).map(|y| format!("{x} {y}")).collect();
        std::thread::sleep(Duration::from_micros(300));
        let total: usize = words.iter().map(String::len).sum();
        let caught: Result<(), _> =
            std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(1)));
        total + usize::from(caught.is_err())
    };
    let expected: Vec<usize> = (0..300).map(task).collect();
    let map = pool.map_async(task, 0..300);
    while !map.is_ready() {
        for worker in pool.dump().workers {
            assert_ne!(worker.state, WorkerState::Terminating);
        }
    }
    assert_eq!(map.get().unwrap(), expected);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// Nor those that panic, walk their own stacks and start threads: what a dump interrupts may be the
/// unwinder itself.
fn a_dump_harms_no_task_that_unwinds<S: Processes>() {
    let pool = &S::pool(2);
    let task = |x: u64| {
        for round in 0..40 {
            let caught = std::panic::catch_unwind(|| {
                let trace = std::backtrace::Backtrace::force_capture();
                std::hint::black_box(&trace);
                panic!("{x}")
            });
            assert!(caught.is_err());
            if round % 10 == 0 {
                std::thread::spawn(move || vec![x; 100]).join().unwrap();
            }
        }
        x
    };
    // As often as it takes: the first names take so long that a whole map may be over meanwhile.
    let mut stacks = 0;
    while stacks < 20 {
        let map = pool.call(task).chunksize(5).map_async(0..100);
        while !map.is_ready() {
            for worker in pool.dump().workers {
                assert_ne!(worker.state, WorkerState::Terminating);
                stacks += u32::from(worker.stack.is_some());
            }
        }
        assert_eq!(map.get().unwrap(), Vec::from_iter(0..100));
    }
    assert_eq!(pool.stats().workers_lost, 0);
}

/// What a task waits for goes on, and what went wrong last is still that.
fn a_dump_leaves_system_calls_and_errors_alone<S: Processes>() {
    let pool = S::pool(1);
    let task = |ticket: String| {
        let (mut changed, mut slept) = (0, true);
        // Each look fails in the same way, until the test has seen enough.
        while std::fs::metadata(&ticket).is_err() {
            for _ in 0..100 {
                let last = std::io::Error::last_os_error().raw_os_error();
                changed += u32::from(last != Some(rustix::io::Errno::NOENT.raw_os_error()));
            }
            let began = std::time::Instant::now();
            std::thread::sleep(Duration::from_micros(500));
            slept &= began.elapsed() >= Duration::from_micros(500);
        }
        (changed, slept)
    };
    let folder = tempfile::tempdir().unwrap();
    let enough = folder.path().join("enough");
    let handle = pool.apply_async(task, enough.to_str().unwrap().to_owned());
    let mut stacks = 0;
    while stacks < 20 {
        stacks += u32::from(only(&pool.dump()).stack.is_some());
    }
    std::fs::write(&enough, "").unwrap();
    assert_eq!(handle.get().unwrap(), (0, true));
}
