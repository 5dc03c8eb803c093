//! Which worker runs what, where the caller says it.

use std::collections::BTreeSet;
use std::time::Duration;

use procpool::{Pool, TaskErrorKind, worker};
use rustix::process::Signal;

use crate::backends::{Builder, Processes};
use crate::file_barrier::{self, Gate};
use crate::procfs::{signal, wait_until, workers};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        each_worker_runs_it_once,
        busy_workers_run_it_when_they_are_through,
        each_worker_has_its_own_outcome,
        workers_that_sleep_are_woken_for_it,
        equal_keys_meet_one_worker,
        keys_are_spread,
        a_key_goes_with_every_kind_of_call,
        a_key_moves_to_the_next_worker,
        keys_outlive_recycling,
        keys_move_when_the_pool_becomes_smaller,
        a_key_keeps_nobody_else_from_its_worker,
        what_waits_for_a_worker_can_be_cancelled,
        what_waits_for_a_worker_ends_with_the_pool,
    ]
}

fn pid<A>(_: A) -> u32 {
    std::process::id()
}

fn pass(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    std::process::id()
}

fn each_worker_runs_it_once<S: Processes>() {
    let pool = S::pool(3);
    for round in 0..20 {
        let outcomes = pool.run_on_each(|x: u32| (x, std::process::id()), round);
        let outcomes = Vec::from_iter(outcomes.into_iter().map(Result::unwrap));
        assert!(outcomes.iter().all(|(x, _)| *x == round));
        let pids = BTreeSet::from_iter(outcomes.iter().map(|(_, pid)| *pid));
        assert_eq!(pids, BTreeSet::from_iter(workers(&pool)));
        pool.map(pid, 0..round).unwrap();
    }
}

fn busy_workers_run_it_when_they_are_through<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let busy = [(); 2].map(|()| pool.apply_async(pass, gate.ticket()));
    let pids = gate.wait_for(2);
    let (pool, gate) = (&pool, &gate);
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(move || pool.run_on_each(pid, ()));
        wait_until(|| pool.stats().queued == 2);
        gate.open();
        asked.join().unwrap()
    });
    let asked = BTreeSet::from_iter(asked.into_iter().map(Result::unwrap));
    assert_eq!(asked, BTreeSet::from_iter(pids));
    for handle in busy {
        handle.get().unwrap();
    }
}

fn each_worker_has_its_own_outcome<S: Processes>() {
    let pool = S::quiet_pool(3);
    let dies = |victim: u32| {
        let this = std::process::id();
        if this == victim {
            std::process::abort();
        }
        this
    };
    let victim = workers(&pool)[1];
    let outcomes = pool.run_on_each(dies, victim);
    let lost = outcomes.iter().filter_map(|it| it.as_ref().err());
    let lost = Vec::from_iter(lost.map(|error| error.kind()));
    assert_eq!((outcomes.len(), lost), (3, vec![TaskErrorKind::WorkerLost]));
    assert!(pool.run_on_each(pid, ()).iter().all(Result::is_ok));
}

fn workers_that_sleep_are_woken_for_it<S: Processes>() {
    let builder = S::builder().processes(2);
    let pool = builder.idle_timeout(Duration::from_millis(1)).build();
    wait_until(|| pool.stats().workers.len() == 1);
    let pids = pool.run_on_each(pid, ());
    let pids = BTreeSet::from_iter(pids.into_iter().map(Result::unwrap));
    assert_eq!(pids.len(), 2);
    wait_until(|| pool.stats().workers.len() == 1);
    for key in 0..4 {
        pool.call(pid).on_worker(key).apply(()).unwrap();
    }
}

fn equal_keys_meet_one_worker<S: Processes>() {
    let pool = S::pool(3);
    let pids = |key: &str| Vec::from_iter((0..4).map(|x| pool.call(pid).on_worker(key).apply(x)));
    for key in ["ann", "bob", "cleo", "dan"] {
        let first = pids(key)[0].clone().unwrap();
        pool.map(pid, 0..100).unwrap();
        assert!(pids(key).into_iter().all(|pid| pid == Ok(first)));
    }
}

fn keys_are_spread<S: Processes>() {
    let pool = S::pool(2);
    let met = (0..64).map(|key| pool.call(pid).on_worker(key).apply(()).unwrap());
    assert_eq!(BTreeSet::from_iter(met).len(), 2);
}

fn a_key_goes_with_every_kind_of_call<S: Processes>() {
    let pool = S::pool(2);
    let call = || pool.call(|x: u64| (x, std::process::id())).on_worker(7);
    let (_, worker) = call().apply(0).unwrap();
    let expected = Vec::from_iter((0..300).map(|x| (x, worker)));
    assert_eq!(call().map(0..300).unwrap(), expected);
    assert_eq!(
        call().chunksize(7).map_async(0..300).get().unwrap(),
        expected
    );
    let lazily: Result<Vec<_>, _> = call().imap(0..300).collect();
    assert_eq!(lazily.unwrap(), expected);
    assert_eq!(call().measured().apply(1).outcome.unwrap(), (1, worker));
}

/// With what was waiting for the one that died.
fn a_key_moves_to_the_next_worker<S: Processes>() {
    let pool = S::quiet_pool(2);
    let gate = Gate::new();
    let key = "ann";
    let stuck = pool.call(pass).on_worker(key).apply_async(gate.ticket());
    let victim = gate.wait_for(1)[0];
    let waiting = [(); 3].map(|()| pool.call(pid).on_worker(key).apply_async(()));
    signal(victim, Signal::KILL);
    assert_eq!(stuck.get().unwrap_err().kind(), TaskErrorKind::WorkerLost);
    let next = waiting.map(|handle| handle.get().unwrap());
    assert!(next.iter().all(|pid| *pid == next[0] && *pid != victim));
    // A retry is run by the next worker as well.
    let dies_once = |(victim, number): (u32, u64)| {
        if std::process::id() == victim {
            std::process::abort();
        }
        number
    };
    let call = pool.call(dies_once).on_worker(key).retries(1);
    assert_eq!(call.apply((next[0], 5)).unwrap(), 5);
}

fn keys_outlive_recycling<S: Processes>() {
    let pool = S::builder().processes(2).max_tasks_per_child(2).build();
    let number = |x: u64| (x, worker::current().map(|it| it.number()));
    for key in 0..3 {
        let call = || pool.call(number).on_worker(key);
        let handles = Vec::from_iter((0..10).map(|x| call().apply_async(x)));
        for (x, handle) in (0..).zip(handles) {
            assert_eq!(handle.get().unwrap().0, x);
        }
    }
}

fn keys_move_when_the_pool_becomes_smaller<S: Processes>() {
    let pool = S::pool(3);
    let gate = Gate::new();
    let keyed = Vec::from_iter((0..12).map(|key| {
        let call = pool.call(pass).on_worker(key);
        call.apply_async(gate.ticket())
    }));
    gate.wait_for(1);
    pool.resize(1).unwrap();
    gate.open();
    for handle in keyed {
        handle.get().unwrap();
    }
    pool.resize(4).unwrap();
    assert_eq!(pool.run_on_each(pid, ()).len(), 4);
}

/// Nor from any other, if all keys are of one.
fn a_key_keeps_nobody_else_from_its_worker<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let first = pool.call(pass).on_worker(1).apply_async(gate.ticket());
    gate.wait_for(1);
    let keyed = Vec::from_iter((0..200).map(|x| pool.call(pid).on_worker(1).apply_async(x)));
    let other = pool.apply_async(pid, 0);
    let waited = |_: u32| std::thread::sleep(Duration::from_millis(1));
    let slow = Vec::from_iter((0..20).map(|x| pool.call(waited).on_worker(1).apply_async(x)));
    gate.open();
    other.get().unwrap();
    first.get().unwrap();
    for handle in keyed {
        handle.get().unwrap();
    }
    for handle in slow {
        handle.get().unwrap();
    }
}

fn what_waits_for_a_worker_can_be_cancelled<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let first = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    let single = pool.call(pid).on_worker(1).apply_async(0);
    let many = pool.call(pid).on_worker(1).map_async(0..5);
    single.cancel();
    many.cancel();
    assert_eq!(many.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    gate.open();
    assert_eq!(single.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    first.get().unwrap();
    assert!(pool.call(pid).on_worker(1).apply(0).is_ok());
}

fn what_waits_for_a_worker_ends_with_the_pool<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let _first = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    let waiting = [(); 2].map(|()| pool.call(pid).on_worker(1).apply_async(()));
    pool.terminate();
    for handle in waiting {
        assert_eq!(handle.get().unwrap_err().kind(), TaskErrorKind::Cancelled);
    }
    // After `close`, they are run.
    let pool = S::pool(1);
    let waiting = [(); 20].map(|()| pool.call(pid).on_worker(1).apply_async(()));
    pool.close();
    pool.join().unwrap();
    assert!(waiting.into_iter().all(|handle| handle.get().is_ok()));
}
