//! How pools end, and where they can be used until then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use procpool::{Pool, TaskErrorKind, worker};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{self, wait_for_death, wait_until};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        join_before_close_is_an_error,
        close_can_be_said_twice,
        every_call_after_close_is_refused,
        every_call_after_terminate_is_refused,
        a_pool_can_be_moved_to_another_thread,
        a_pool_can_be_shared_by_threads,
        a_pool_can_be_a_trait_object,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        close_finishes_what_there_is,
        join_waits_no_longer_than_it_is_told,
        dropping_a_pool_ends_its_workers,
        dropping_a_pool_cancels_what_there_is,
        terminating_cancels_ten_thousand_tasks,
        terminating_wakes_whoever_waits,
        terminating_can_follow_closing,
        closing_races_with_submitting,
        terminating_races_with_submitting,
        there_are_never_more_workers_than_asked_for,
        an_idle_pool_is_used_again,
        the_parent_is_no_worker,
        a_worker_knows_who_it_is,
        a_worker_can_have_a_pool,
        a_worker_can_have_a_pool_of_workers_that_have_pools,
        an_unclosed_pool_ends_with_main,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: unclosed]
}

fn square(x: u64) -> u64 {
    x * x
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

/// While the pool takes tasks, waiting for its end might never end.
fn join_before_close_is_an_error<S: Subject>() {
    let pool = S::pool(1);
    for error in [
        pool.join().unwrap_err(),
        pool.join_timeout(Duration::MAX).unwrap_err(),
    ] {
        assert!(error.to_string().contains("close()"), "{error}");
    }
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    pool.close();
    pool.join().unwrap();
}

/// `close`, `join` and `terminate` can be said again, in any order.
fn close_can_be_said_twice<S: Subject>() {
    let pool = S::pool(2);
    let handle = pool.map_async(square, 0..100);
    pool.close();
    pool.close();
    pool.join().unwrap();
    pool.join().unwrap();
    assert!(pool.join_timeout(Duration::ZERO).unwrap());
    pool.close();
    pool.terminate();
    pool.terminate();
    pool.join().unwrap();
    assert_eq!(handle.get().unwrap().len(), 100);
}

/// Says that every kind of call fails, each of its items as closed.
fn assert_closed<P: Pool>(pool: &P) {
    let errors = [
        pool.apply(square, 1).unwrap_err(),
        pool.apply_async(square, 1).get().unwrap_err(),
        pool.map(square, 0..9).unwrap_err(),
        pool.try_map(square, 0..9).remove(8).unwrap_err(),
        pool.map_async(square, 0..9).get().unwrap_err(),
        pool.imap(square, 0..9).next().unwrap().unwrap_err(),
        pool.imap_unordered(square, 0..9)
            .next()
            .unwrap()
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), TaskErrorKind::Closed, "{error}");
        assert!(error.is_closed());
    }
    assert_eq!(pool.try_map(square, 0..9).len(), 9);
    assert_eq!(pool.imap(square, 0..9).count(), 9);
    let endless = pool.imap_unordered(square, 0..).take(100);
    assert_eq!(endless.filter(Result::is_err).count(), 100);
}

/// A call after `close` fails as closed, before and after the workers are gone.
fn every_call_after_close_is_refused<S: Subject>() {
    let pool = S::pool(2);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    pool.close();
    assert_closed(&pool);
    pool.join().unwrap();
    assert_closed(&pool);
}

/// So does one after `terminate`.
fn every_call_after_terminate_is_refused<S: Subject>() {
    let pool = S::pool(2);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    pool.terminate();
    assert_closed(&pool);
    pool.join().unwrap();
    assert_closed(&pool);
}

/// A pool belongs to no thread: it works where it was moved, also when the thread that built it is
/// gone.
fn a_pool_can_be_moved_to_another_thread<S: Subject>() {
    let pool = std::thread::spawn(|| S::pool(2)).join().unwrap();
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    let pool = std::thread::spawn(move || {
        assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
        pool
    });
    assert_eq!(pool.join().unwrap().apply(square, 5).unwrap(), 25);
}

/// References and `Arc`s of a pool are pools, and handles can be read by other threads.
fn a_pool_can_be_shared_by_threads<S: Subject>() {
    fn sum(pool: impl Pool) -> u64 {
        pool.map(square, 0..4).unwrap().into_iter().sum()
    }
    let pool = Arc::new(S::pool(2));
    assert_eq!(sum(&*pool), 14);
    let shared = pool.clone();
    let handle = std::thread::spawn(move || {
        assert_eq!(sum(shared.clone()), 14);
        shared.apply_async(square, 5)
    });
    let handle = handle.join().unwrap();
    let reader = std::thread::spawn(move || handle.get().unwrap());
    assert_eq!(reader.join().unwrap(), 25);
}

/// What every kind of pool stands on can be held without saying which kind it is.
fn a_pool_can_be_a_trait_object<S: Subject>() {
    struct Some(Arc<dyn procpool::executor::Executor>);
    impl Pool for Some {
        fn executor(&self) -> &Arc<dyn procpool::executor::Executor> {
            &self.0
        }
    }
    let pool = S::pool(2);
    let some = Some(pool.executor().clone());
    assert_eq!(some.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    assert_eq!(some.processes(), pool.processes());
}

/// With fifty tasks outstanding, `close` lets all of them end with their values.
fn close_finishes_what_there_is<S: Processes>() {
    let pool = S::pool(2);
    let pids = procfs::workers(&pool);
    let gate = Gate::new();
    let tally = Tally::new();
    let task = |(gate, tally, x): (String, String, u64)| {
        file_barrier::pass(&gate);
        file_barrier::add(&tally, x);
        x
    };
    let arguments = |x| (gate.ticket(), tally.ticket(), x);
    let handles: Vec<_> = (0..25)
        .map(|x| pool.apply_async(task, arguments(x)))
        .collect();
    let map = pool.map_async(task, (25..50).map(arguments));
    gate.wait_for(2);
    pool.close();
    gate.open();
    pool.join().unwrap();
    assert_eq!(tally.count(), 50, "join has waited for all");
    for (x, handle) in (0..).zip(handles) {
        assert!(handle.is_ready());
        assert_eq!(handle.get().unwrap(), x);
    }
    assert_eq!(map.get().unwrap(), Vec::from_iter(25..50));
    wait_for_death(&pids);
    assert_eq!(pool.stats().workers_lost, 0, "they went in good order");
    assert_eq!(pool.stats().workers, []);
}

/// `join_timeout` says whether everything has ended.
fn join_waits_no_longer_than_it_is_told<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handle = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    pool.close();
    assert!(!pool.join_timeout(Duration::ZERO).unwrap());
    assert!(!pool.join_timeout(Duration::from_millis(5)).unwrap());
    gate.open();
    assert!(pool.join_timeout(Duration::MAX).unwrap());
    handle.get().unwrap();
}

/// No worker outlives its pool, whether idle or in the middle of a task.
fn dropping_a_pool_ends_its_workers<S: Processes>() {
    for busy in [false, true] {
        let pool = S::pool(3);
        let pids = procfs::workers(&pool);
        assert_eq!(pids.len(), 3);
        let gate = Gate::new();
        if busy {
            drop(pool.map_async(pass, vec![gate.ticket(); 3]));
            gate.wait_for(1);
        }
        assert!(pids.iter().all(|pid| procfs::is_alive(*pid)));
        drop(pool);
        wait_for_death(&pids);
    }
}

/// Handles outlive their pool: what had ended is still there, and the rest is cancelled.
fn dropping_a_pool_cancels_what_there_is<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let done = pool.apply_async(square, 3);
    let running = pool.apply_async(pass, gate.ticket());
    let queued = pool.apply_async(square, 3);
    let map = pool.map_async(square, 0..100);
    gate.wait_for(1);
    done.wait();
    drop(pool);
    assert_eq!(done.get().unwrap(), 9);
    assert_eq!(map.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    assert_eq!(queued.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    let error = running.get().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Cancelled, "{error}");
    assert!(error.to_string().contains("terminated"), "{error}");
}

fn never(_: u64) {
    loop {
        std::thread::park();
    }
}

/// Every one of ten thousand tasks that would never end answers that it was cancelled.
fn terminating_cancels_ten_thousand_tasks<S: Processes>() {
    let pool = S::pool(2);
    let pids = procfs::workers(&pool);
    let map = pool.map_async(never, 0..5_000);
    let handles: Vec<_> = (0..5_000).map(|x| pool.apply_async(never, x)).collect();
    assert_eq!(pool.stats().submitted, 10_000);
    pool.terminate();
    assert!(map.get().unwrap_err().is_cancelled());
    for handle in handles {
        assert!(handle.get().unwrap_err().is_cancelled());
    }
    pool.join().unwrap();
    wait_for_death(&pids);
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running), (0, 0));
    assert_eq!((stats.succeeded, stats.failed), (0, 10_000));
}

/// Threads that wait in any kind of call are woken by `terminate`, with an error.
fn terminating_wakes_whoever_waits<S: Processes>() {
    let pool = &S::pool(2);
    let gate = &Gate::new();
    let tickets = || vec![gate.ticket(); 4];
    std::thread::scope(|scope| {
        let kinds = [
            scope.spawn(move || pool.apply(pass, gate.ticket()).unwrap_err()),
            scope.spawn(move || pool.apply_async(pass, gate.ticket()).get().unwrap_err()),
            scope.spawn(move || pool.map(pass, tickets()).unwrap_err()),
            scope.spawn(move || pool.map_async(pass, tickets()).get().unwrap_err()),
            scope.spawn(move || pool.imap(pass, tickets()).next().unwrap().unwrap_err()),
            scope.spawn(move || {
                pool.imap_unordered(pass, tickets())
                    .next()
                    .unwrap()
                    .unwrap_err()
            }),
        ];
        gate.wait_for(2);
        // All six have submitted something.
        wait_until(|| pool.stats().submitted >= 6 && pool.stats().queued >= 4);
        pool.terminate();
        for kind in kinds {
            let error = kind.join().unwrap();
            // A thread that comes to submit only now finds the pool closed.
            assert!(error.is_cancelled() || error.is_closed(), "{error}");
        }
    });
}

/// Somebody who has lost patience with `close` can end the rest.
fn terminating_can_follow_closing<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let handles = [(); 3].map(|()| pool.apply_async(pass, gate.ticket()));
    gate.wait_for(1);
    pool.close();
    assert!(!pool.join_timeout(Duration::ZERO).unwrap());
    pool.terminate();
    pool.join().unwrap();
    for handle in handles {
        assert!(handle.get().unwrap_err().is_cancelled());
    }
}

/// Submits from two threads until both are refused, ends the pool meanwhile, and says what became
/// of each call.
fn race<S: Processes>(end: fn(&S::Pool), kinds: &[TaskErrorKind]) {
    for round in 0..20 {
        let pool = &S::pool(2);
        let begun = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            for background in [false, true] {
                scope.spawn(move || {
                    for x in 0.. {
                        begun.store(x > 10, Ordering::Relaxed);
                        let result = if background {
                            let handle = pool.apply_async(square, x);
                            let second = pool.apply_async(square, x);
                            let second = second.get();
                            assert!(second.is_err() || second.unwrap() == x * x);
                            handle.get()
                        } else {
                            pool.map(square, [x, x]).map(|xs| xs[1])
                        };
                        match result {
                            Ok(y) => assert_eq!(y, x * x),
                            Err(error) => {
                                assert!(kinds.contains(&error.kind()), "{error}");
                                return;
                            }
                        }
                    }
                });
            }
            wait_until(|| begun.load(Ordering::Relaxed));
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            end(pool);
            pool.join().unwrap();
        });
    }
}

/// While one thread closes the pool, each call of others ends: with its value, or as closed.
fn closing_races_with_submitting<S: Processes>() {
    race::<S>(|pool| pool.close(), &[TaskErrorKind::Closed]);
}

/// While one thread terminates the pool, each call of others ends.
fn terminating_races_with_submitting<S: Processes>() {
    let kinds = [TaskErrorKind::Closed, TaskErrorKind::Cancelled];
    race::<S>(|pool| pool.terminate(), &kinds);
}

/// Neither many tasks, nor recycling, nor deaths make more workers than there may be: no more than
/// asked for run tasks, and each of them may have one that is to take its place, or is still on its
/// way out.
fn there_are_never_more_workers_than_asked_for<S: Processes>() {
    let starts = Tally::new();
    // A task writes down that it begins and that it ends, the latter before it does harm.
    fn task((ticket, x): (String, u64)) -> u64 {
        file_barrier::add(&ticket, format!("+{}", std::process::id()));
        file_barrier::add(&ticket, format!("-{}", std::process::id()));
        assert!(x != 13);
        if x == 17 {
            std::process::abort();
        }
        x
    }
    let builder = S::builder().processes(2).max_tasks_per_child(5);
    let pool = &builder.build();
    let is_over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let workers = pool.stats().workers;
                assert!(workers.len() <= 4, "{workers:?}");
                let pids = workers.iter().map(|worker| worker.pid());
                assert!(pids.filter(|pid| procfs::is_alive(*pid)).count() <= 4);
                std::thread::yield_now();
            }
        });
        for _ in 0..3 {
            let items = (0..50).map(|x| (starts.ticket(), x));
            let results = pool.call(task).chunksize(1).try_map(items);
            assert_eq!(results.iter().filter(|result| result.is_err()).count(), 2);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(pool.processes(), 2);
    let mut running = 0;
    let mut pids = BTreeSet::new();
    for line in starts.lines() {
        let (what, pid) = line.split_at(1);
        pids.insert(pid.to_owned());
        running += if what == "+" { 1 } else { -1 };
        assert!(running <= 2, "two run tasks");
    }
    assert!(pids.len() as u64 <= pool.stats().workers_started);
    assert!(pids.len() >= 30, "they were recycled: {pids:?}");
}

/// Without a reason no worker is started: all that ever ran something are the first ones.
fn an_idle_pool_is_used_again<S: Processes>() {
    let pool = S::pool(2);
    let mut first = procfs::workers(&pool);
    first.sort_unstable();
    for _ in 0..20 {
        let pids = pool.map(|_: u64| std::process::id(), 0..100).unwrap();
        assert!(pids.iter().all(|pid| first.contains(pid)));
    }
    let mut last = procfs::workers(&pool);
    last.sort_unstable();
    assert_eq!(first, last);
    assert_eq!(pool.stats().workers_started, 2);
}

/// `worker::current` is for workers; outside of tasks nothing is cancelled.
fn the_parent_is_no_worker<S: Processes>() {
    let _pool = S::pool(1);
    assert!(worker::current().is_none());
    assert!(!worker::is_cancelled());
}

/// In a task, `worker::current` says what the pool's statistics say of that worker.
fn a_worker_knows_who_it_is<S: Processes>() {
    type Identity = (String, u32, u32, u32);
    fn identity(worker: &procpool::WorkerInfo) -> Identity {
        (
            worker.name(),
            worker.number(),
            worker.pid(),
            worker.generation(),
        )
    }
    let pool = S::pool(1);
    let who = |()| -> (Identity, u32) {
        let worker = worker::current().expect("a task runs in a worker");
        (identity(&worker), std::process::id())
    };
    let (first, pid) = pool.apply(who, ()).unwrap();
    assert_eq!(first, ("PoolWorker-1".to_owned(), 1, pid, 0));
    assert_eq!(identity(&pool.stats().workers[0].info), first);
    assert!(
        pool.apply(|()| -> () { std::process::abort() }, ())
            .is_err()
    );
    let (second, pid) = pool.apply(who, ()).unwrap();
    assert_eq!(second, ("PoolWorker-2".to_owned(), 2, pid, 1));
    assert_ne!(first.2, second.2);
}

/// Squares numbers on a pool of its own.
fn with_own_pool<S: Processes>(numbers: Vec<u64>) -> (u32, Vec<u64>) {
    let pool = S::pool(2);
    let squares = pool.map(square, numbers).unwrap();
    (std::process::id(), squares)
}

/// A task may use a pool of its own, several of them at the same time.
fn a_worker_can_have_a_pool<S: Processes>() {
    let pool = S::pool(2);
    let items = (0..6).map(|x| vec![x, x + 1]);
    let results = pool.map(with_own_pool::<S>, items).unwrap();
    for (x, (pid, squares)) in (0..).zip(results) {
        assert_ne!(pid, std::process::id());
        assert_eq!(squares, [x * x, (x + 1) * (x + 1)]);
    }
}

/// And so may the tasks of that pool.
fn a_worker_can_have_a_pool_of_workers_that_have_pools<S: Processes>() {
    fn deeper<S: Processes>(x: u64) -> Vec<u64> {
        let pool = S::pool(1);
        pool.apply(with_own_pool::<S>, vec![x, x + 1]).unwrap().1
    }
    let pool = S::pool(2);
    assert_eq!(pool.map(deeper::<S>, [2, 5]).unwrap(), [[4, 9], [25, 36]]);
}

fn unclosed<S: Processes>() {
    static POOL: std::sync::OnceLock<Box<dyn Send + Sync>> = std::sync::OnceLock::new();
    let pool = S::pool(2);
    println!("{}", pool.map(square, 0..4).unwrap().len());
    drop(pool.map_async(never, 0..10));
    wait_until(|| pool.stats().running > 0);
    // Nothing ever drops it, and its tasks are still running.
    assert!(POOL.set(Box::new(pool)).is_ok());
}

/// A program that forgets its pool ends as if there was none, and nothing stays behind.
fn an_unclosed_pool_ends_with_main<S: Processes>() {
    // `lines` sees to the rest.
    assert_eq!(again::<S>("unclosed").lines(), ["4"]);
}
