//! Pools whose queue is bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use procpool::{BuildErrorKind, Pool, QueueFull, TaskErrorKind, TaskHandle};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S: a_pool_without_a_bound_refuses_nothing]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_full_queue_refuses_and_gives_the_argument_back,
        a_full_queue_lets_its_submitter_wait,
        a_wait_for_room_ends_with_the_pool,
        a_cancelled_task_makes_room,
        a_bound_holds_no_map_back,
        a_bound_of_zero_is_refused,
    ]
}

/// How many may wait in the pools here.
const BOUND: usize = 3;

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

fn pool<S: Processes>() -> S::Pool {
    S::builder().processes(1).max_queued(BOUND).build()
}

/// Fills the pool's queue with tasks that wait at the gate, until one is refused.
fn fill<S: Processes>(pool: &S::Pool, gate: &Gate) -> Vec<TaskHandle<()>> {
    let mut handles = vec![pool.apply_async(pass, gate.ticket())];
    gate.wait_for(1);
    loop {
        match pool.try_apply_async(pass, gate.ticket()) {
            Ok(handle) => handles.push(handle),
            Err(QueueFull(ticket)) => {
                assert_eq!(ticket, gate.ticket());
                return handles;
            }
        }
    }
}

fn a_pool_without_a_bound_refuses_nothing<S: Subject>() {
    let pool = S::pool(2);
    let handles: Vec<_> = (0..200)
        .map(|x| pool.try_apply_async(|x: u64| x + 1, x))
        .collect();
    for (x, handle) in (0..).zip(handles) {
        assert_eq!(handle.expect("room").get().unwrap(), x + 1);
    }
}

fn a_full_queue_refuses_and_gives_the_argument_back<S: Processes>() {
    let pool = pool::<S>();
    let gate = Gate::new();
    let handles = fill::<S>(&pool, &gate);
    // Of long tasks, a worker has the one that it runs and one more.
    assert_eq!(handles.len(), 2 + BOUND);
    assert_eq!(pool.stats().queued, BOUND as u64);
    let refused = pool.call(pass).retries(1).try_apply_async(gate.ticket());
    assert!(refused.unwrap_err().to_string().contains("full"));
    gate.open();
    for handle in handles {
        handle.get().unwrap();
    }
    let handle = pool.try_apply_async(|x: u64| x, 7).expect("room");
    assert_eq!(handle.get().unwrap(), 7);
    assert_eq!(pool.stats().submitted, 2 + BOUND as u64 + 1);
}

/// Any number of threads that submit wait, and each goes on.
fn a_full_queue_lets_its_submitter_wait<S: Processes>() {
    let pool = pool::<S>();
    let gate = Gate::new();
    let handles = fill::<S>(&pool, &gate);
    let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let submitters = [0, 100, 200].map(|first| {
            let (pool, begun, done) = (&pool, &begun, &done);
            scope.spawn(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let handles = (first..first + 20).map(|x| {
                    let handle = pool.apply_async(|x: u64| x, x);
                    done.fetch_add(1, Ordering::SeqCst);
                    handle
                });
                let results = handles.collect::<Vec<_>>().into_iter();
                results.map(|it| it.get().unwrap()).collect::<Vec<u64>>()
            })
        });
        wait_until(|| begun.load(Ordering::SeqCst) == 3);
        for _ in 0..1000 {
            thread::yield_now();
            assert_eq!(done.load(Ordering::SeqCst), 0, "there is no room");
        }
        assert_eq!(pool.stats().queued, BOUND as u64);
        gate.open();
        for (first, submitter) in [0, 100, 200].into_iter().zip(submitters) {
            let results = submitter.join().expect("no panic");
            assert_eq!(results, Vec::from_iter(first..first + 20));
        }
    });
    for handle in handles {
        handle.get().unwrap();
    }
}

fn a_wait_for_room_ends_with_the_pool<S: Processes>() {
    for is_closed in [true, false] {
        let pool = pool::<S>();
        let gate = Gate::new();
        let handles = fill::<S>(&pool, &gate);
        let begun = AtomicUsize::new(0);
        thread::scope(|scope| {
            let submitters = [(); 3].map(|()| {
                scope.spawn(|| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    pool.apply_async(|x: u64| x, 1).get()
                })
            });
            wait_until(|| begun.load(Ordering::SeqCst) == 3);
            for _ in 0..1000 {
                thread::yield_now();
            }
            if is_closed {
                pool.close();
            } else {
                pool.terminate();
            }
            for submitter in submitters {
                let error = submitter.join().expect("no panic").unwrap_err();
                assert_eq!(error.kind(), TaskErrorKind::Closed, "{error}");
            }
        });
        gate.open();
        for handle in handles {
            assert_eq!(handle.get().is_ok(), is_closed);
        }
        let late = pool
            .try_apply_async(|x: u64| x, 1)
            .expect("no matter of room");
        assert!(late.get().unwrap_err().is_closed());
    }
}

fn a_cancelled_task_makes_room<S: Processes>() {
    let pool = pool::<S>();
    let gate = Gate::new();
    let mut handles = fill::<S>(&pool, &gate);
    let last = handles.pop().expect("some wait");
    thread::scope(|scope| {
        let submitter = scope.spawn(|| pool.apply_async(|x: u64| x, 5).get().unwrap());
        last.cancel();
        assert!(last.get().unwrap_err().is_cancelled());
        gate.open();
        assert_eq!(submitter.join().expect("no panic"), 5);
    });
    let gate = Gate::new();
    let handles = fill::<S>(&pool, &gate);
    handles.last().expect("some wait").cancel();
    let another = pool.try_apply_async(|x: u64| x, 6).expect("room");
    gate.open();
    assert_eq!(another.get().unwrap(), 6);
}

fn a_bound_holds_no_map_back<S: Processes>() {
    let pool = pool::<S>();
    let all = Vec::from_iter(0..100);
    let handle = pool.call(|x: u64| x).chunksize(1).map_async(0..100);
    assert_eq!(handle.get().unwrap(), all);
    assert_eq!(pool.call(|x: u64| x).chunksize(1).map(0..100).unwrap(), all);
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

fn a_bound_of_zero_is_refused<S: Processes>() {
    let error = S::builder()
        .max_queued(0)
        .try_build()
        .map(drop)
        .expect_err("no bound");
    assert_eq!(error.kind(), BuildErrorKind::InvalidConfig);
    assert!(error.to_string().contains("max_queued"), "{error}");
}
