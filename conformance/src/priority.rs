//! Calls that go before others.

use procpool::Pool;

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S: a_priority_changes_no_result]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        what_is_urgent_goes_first,
        what_is_urgent_goes_before_what_waits_in_a_worker,
        what_can_wait_waits_for_all_others,
        equal_priorities_keep_their_order,
        an_urgent_map_goes_before_the_rest_of_another,
    ]
}

/// Notes which one it is.
fn note((tally, name): (String, u32)) -> u32 {
    file_barrier::add(&tally, name);
    name
}

fn a_priority_changes_no_result<S: Subject>() {
    let pool = S::pool(2);
    let all = Vec::from_iter(0..50);
    let calls = [i32::MIN, -1, 0, 1, i32::MAX]
        .map(|priority| pool.call(|x: u64| x).priority(priority).map_async(0..50));
    for call in calls {
        assert_eq!(call.get().unwrap(), all);
    }
    let lazy: Result<Vec<u64>, _> = pool.call(|x: u64| x).priority(3).imap(0..50).collect();
    assert_eq!(lazy.unwrap(), all);
}

/// Runs these calls, each with a priority, behind a task that waits until all were made, and gives
/// the order in which they ran.
fn order_of<S: Processes>(priorities: &[i32]) -> Vec<u32> {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let first = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let names = (0..).zip(priorities);
    let handles: Vec<_> = names
        .map(|(name, &priority)| {
            let call = pool.call(note).priority(priority);
            call.apply_async((tally.ticket(), name))
        })
        .collect();
    gate.open();
    first.get().unwrap();
    for handle in handles {
        handle.get().unwrap();
    }
    tally.numbers()
}

fn what_is_urgent_goes_first<S: Processes>() {
    assert_eq!(order_of::<S>(&[1, 3, 2, 3, 1, 0]), [1, 3, 2, 0, 4, 5]);
}

/// The first ones are given to the worker before the urgent one is there.
fn what_is_urgent_goes_before_what_waits_in_a_worker<S: Processes>() {
    let mut priorities = [0; 12];
    priorities[11] = 1;
    let order = order_of::<S>(&priorities);
    assert_eq!(order[0], 11);
    assert_eq!(order[1..], Vec::from_iter(0..11));
}

fn what_can_wait_waits_for_all_others<S: Processes>() {
    assert_eq!(order_of::<S>(&[-1, -2, 0, 0]), [2, 3, 0, 1]);
}

fn equal_priorities_keep_their_order<S: Processes>() {
    assert_eq!(order_of::<S>(&[7; 40]), Vec::from_iter(0..40));
}

/// Also where that is in the middle of a chunk: the item that runs is the last before it.
fn an_urgent_map_goes_before_the_rest_of_another<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let task = |(tally, gate, name): (String, String, u32)| {
        file_barrier::add(&tally, name);
        if name == 2 {
            file_barrier::pass(&gate);
        }
    };
    let items = |names: std::ops::Range<u32>| {
        let items = names.map(|name| (tally.ticket(), gate.ticket(), name));
        items.collect::<Vec<_>>()
    };
    let long = pool.call(task).chunksize(10).map_async(items(0..20));
    gate.wait_for(1);
    let urgent = pool
        .call(task)
        .priority(1)
        .chunksize(3)
        .map_async(items(100..105));
    gate.open();
    urgent.get().unwrap();
    long.get().unwrap();
    wait_until(|| tally.count() == 25);
    let order = Vec::from_iter((0..3).chain(100..105).chain(3..20));
    assert_eq!(tally.numbers(), order);
}
