//! Which worker gets which item: nobody waits behind a stuck one while another worker idles.

use std::collections::BTreeSet;

use procpool::Pool;

use crate::backends::Processes;
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        all_workers_work,
        tasks_behind_a_stuck_one_go_to_another_worker,
        items_behind_a_stuck_one_go_to_another_worker,
        quick_items_do_not_bind_those_behind,
        a_map_goes_on_beside_another_one,
    ]
}

fn pass(ticket: String) -> u32 {
    file_barrier::pass(&ticket);
    std::process::id()
}

/// As many slow items as there are workers run at the same time, in every kind of call.
fn all_workers_work<S: Processes>() {
    let pool = &S::pool(3);
    let distinct = |pids: Vec<u32>| BTreeSet::from_iter(pids).len();
    let gate = Gate::new();
    let handles = [(); 3].map(|()| pool.apply_async(pass, gate.ticket()));
    assert_eq!(distinct(gate.wait_for(3)), 3);
    gate.open();
    for handle in handles {
        handle.get().unwrap();
    }

    let gate = Gate::new();
    let map = pool.map_async(pass, vec![gate.ticket(); 3]);
    assert_eq!(distinct(gate.wait_for(3)), 3);
    gate.open();
    map.get().unwrap();

    let gate = &Gate::new();
    std::thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(pass, vec![gate.ticket(); 3]));
        let pids = gate.wait_for(3);
        gate.open();
        assert_eq!(distinct(pids), 3);
        map.join().unwrap().unwrap();
    });
}

/// Single tasks that were handed to the worker which is now stuck are run by the other.
fn tasks_behind_a_stuck_one_go_to_another_worker<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    for round in 0..20 {
        let stuck = (round == 10).then(|| {
            let stuck = pool.apply_async(pass, gate.ticket());
            (0..20).for_each(|x| drop(pool.apply_async(|x: u64| x, x)));
            stuck
        });
        let handles: Vec<_> = (0..20).map(|x| pool.apply_async(|x: u64| x, x)).collect();
        for (x, handle) in (0..).zip(handles) {
            assert_eq!(handle.get().unwrap(), x);
        }
        if let Some(stuck) = stuck {
            gate.wait_for(1);
            assert!(!stuck.is_ready());
            gate.open();
            stuck.get().unwrap();
        }
    }
}

/// Items in the same chunk as one that is stuck are run by the other worker, and not only when it
/// is the first of them.
fn items_behind_a_stuck_one_go_to_another_worker<S: Processes>() {
    /// One item waits until all others have run.
    fn task((tally, x, stuck): (String, u32, bool)) -> u32 {
        if stuck {
            wait_until(|| std::fs::read_to_string(&tally).is_ok_and(|text| text.len() == 2 * 999));
        } else {
            file_barrier::add(&tally, "x");
        }
        x
    }
    let pool = S::pool(2);
    for stuck in [0, 500, 998] {
        for chunk in [100, 1000] {
            let tally = Tally::new();
            let items = (0..1000).map(|x| (tally.ticket(), x, x == stuck));
            let map = pool.call(task).chunksize(chunk).map_async(items);
            assert_eq!(map.get().unwrap(), Vec::from_iter(0..1000));
        }
    }
}

/// The same where the items before it are over in nanoseconds.
fn quick_items_do_not_bind_those_behind<S: Processes>() {
    fn task((tally, behind): (Option<String>, bool)) {
        match tally {
            // Quick.
            None => {}
            Some(tally) if behind => file_barrier::add(&tally, "run"),
            Some(tally) => {
                wait_until(|| std::fs::read(&tally).is_ok_and(|text| text.len() == 4 * 100))
            }
        }
    }
    let pool = S::pool(2);
    let tally = Tally::new();
    let quick = std::iter::repeat_n((None, false), 5000);
    let stuck = std::iter::once((Some(tally.ticket()), false));
    let behind = std::iter::repeat_n((Some(tally.ticket()), true), 100);
    let items = quick.chain(stuck).chain(behind);
    let map = pool.call(task).chunksize(10_000).map_async(items);
    assert_eq!(map.get().unwrap().len(), 5101);
    assert_eq!(tally.count(), 100);
}

/// A long map does not keep short calls waiting until it is over.
fn a_map_goes_on_beside_another_one<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let stuck = pool.apply_async(pass, gate.ticket());
    gate.wait_for(1);
    assert_eq!(pool.map(|x: u64| x, 0..1000).unwrap().len(), 1000);
    assert_eq!(
        pool.map_async(|x: u64| x, 0..1000).get().unwrap().len(),
        1000
    );
    assert_eq!(pool.imap(|x: u64| x, 0..1000).count(), 1000);
    assert!(!stuck.is_ready());
    gate.open();
    stuck.get().unwrap();
}
