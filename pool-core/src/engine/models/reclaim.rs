//! loom: the hand-back of work. Whatever the parent counts as begun, the worker runs, and nothing
//! else.
//!
//! `membarrier` is modelled in `sys/model/barrier.rs`, and taken on trust is that the kernel keeps
//! what is said there; the other half of these models has no such barriers, as on old kernels.
//!
//! Caught when broken on purpose: the worker looks for a reclaim before it writes down what it
//! begins; no fence on its side where there is no barrier; no barrier on the parent's; the parent
//! reads what has begun before it says that it takes back; the worker does not wait for the
//! decision, or ignores it; the decision is published with `Relaxed`; the waiting worker is not
//! woken; nothing is reinstated.

use std::sync::Arc;

use super::explore;
use crate::shm::region::{Region, RingSizes};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread;
use crate::sys::Processor;

fn region() -> Arc<Region> {
    Arc::new(Region::for_model(Region::bytes_for(RingSizes::both(64))))
}

/// The worker runs items up to `last`, from `first` on, and returns the number of the last that
/// it ran; it stops at the first that was taken back.
fn run_items(region: &Region, first: u64, last: u64, fenced: bool) -> u64 {
    for number in first..=last {
        if !region.begin_item(number, fenced) {
            return number - 1;
        }
    }
    last
}

fn taken_back_once(fenced: bool, items: u64) {
    explore(4, move || {
        if fenced {
            Processor::without_barriers();
        }
        let region = region();
        let theirs = Arc::new(region.again());
        let worker = thread::Builder::new()
            .spawn(move || Processor::run(|| run_items(&theirs, 1, items, fenced)));
        let begun = region.begin_reclaim();
        let ran = worker.expect("a thread").join().expect("no panic");
        assert_eq!(ran, begun);
    });
}

#[test]
fn what_is_taken_back_is_not_run_with_membarrier() {
    taken_back_once(false, 2);
}

#[test]
fn what_is_taken_back_is_not_run_with_fences() {
    taken_back_once(true, 2);
}

/// Items are taken back, the worker passes over them and says so, items are reinstated, more are
/// handed out and taken back again.
fn taken_back_twice(fenced: bool) {
    explore(2, move || {
        if fenced {
            Processor::without_barriers();
        }
        let region = region();
        let theirs = Arc::new(region.again());
        // What the rings carry: how far the worker has read, and how many items it was handed.
        let passed = Arc::new(AtomicU64::new(0));
        let handed = Arc::new(AtomicU64::new(0));
        let (their_passed, their_handed) = (passed.clone(), handed.clone());
        let worker = thread::Builder::new().spawn(move || {
            Processor::run(|| {
                let first = run_items(&theirs, 1, 1, fenced);
                their_passed.store(1, Ordering::Release);
                while their_handed.load(Ordering::Acquire) == 0 {
                    thread::spin_loop();
                }
                let second = run_items(&theirs, 2, 2, fenced);
                (first, second)
            })
        });
        let first = region.begin_reclaim();
        while passed.load(Ordering::Acquire) == 0 {
            thread::spin_loop();
        }
        region.finish_reclaim();
        handed.store(1, Ordering::Release);
        let second = region.begin_reclaim().max(1);
        let ran = worker.expect("a thread").join().expect("no panic");
        assert_eq!(ran, (first, second));
    });
}

#[test]
fn what_is_reinstated_is_run_with_membarrier() {
    taken_back_twice(false);
}

#[test]
fn what_is_reinstated_is_run_with_fences() {
    taken_back_twice(true);
}

/// The worker dies at some point. What it had begun is known then, and agrees with what was
/// decided before.
#[test]
fn a_worker_that_dies_takes_one_item_with_it() {
    for lives in 0..=3 {
        explore(3, move || {
            let region = region();
            let theirs = Arc::new(region.again());
            let worker = thread::Builder::new()
                .spawn(move || Processor::run(|| run_items(&theirs, 1, lives, false)));
            let begun = region.begin_reclaim();
            let ran = worker.expect("a thread").join().expect("no panic");
            assert_eq!(ran, begun);
            // It may have written down one more, and found that it must not run that.
            assert!(region.items_begun() == begun || region.items_begun() == begun + 1);
        });
    }
}
