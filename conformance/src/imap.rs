//! `imap` and `imap_unordered`: they read ahead, but not without bound.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use procpool::Pool;

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        imap_keeps_the_order_under_chunking,
        the_end_is_for_good,
        an_endless_input_is_fine,
        nothing_is_taken_before_somebody_asks,
        no_more_is_taken_than_the_buffer_allows,
        an_input_that_panics_is_heard_of_after_its_items,
        a_map_whose_input_panics_panics,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_small_buffer_is_used_up,
        a_buffer_keeps_several_workers_at_work,
        unordered_results_come_as_they_finish,
        ordered_results_wait_for_their_turn,
        dropping_the_iterator_cancels_the_rest,
    ]
}

fn square(x: u64) -> u64 {
    x * x
}

/// `imap` gives the results in the order of the items although the chunks take different times.
fn imap_keeps_the_order_under_chunking<S: Subject>() {
    fn uneven(x: u64) -> u64 {
        // Some items take a hundred times as long as others.
        let turns = if x.is_multiple_of(7) { 20_000 } else { 200 };
        (0..turns).fold(x, |x, _| std::hint::black_box(x))
    }
    let pool = S::pool(3);
    for chunk in [1, 3, 20, 1000] {
        let results = pool.call(uneven).chunksize(chunk).imap(0..300);
        let results: Vec<u64> = results.map(Result::unwrap).collect();
        assert_eq!(results, Vec::from_iter(0..300), "in chunks of {chunk}");
    }
}

/// After the last result there is none, however often one asks, and the input is not asked again.
fn the_end_is_for_good<S: Subject>() {
    /// Three items, an end, and then more items.
    struct Undead(u64);
    impl Iterator for Undead {
        type Item = u64;
        fn next(&mut self) -> Option<u64> {
            self.0 += 1;
            (self.0 != 4).then_some(self.0)
        }
    }
    let pool = S::pool(2);
    let mut ordered = pool.imap(square, Undead(0));
    let mut unordered = pool.imap_unordered(square, Undead(0));
    let results: Vec<u64> = ordered.by_ref().map(Result::unwrap).collect();
    assert_eq!(results, [1, 4, 9]);
    assert_eq!(unordered.by_ref().count(), 3);
    for _ in 0..3 {
        assert!(ordered.next().is_none());
        assert!(unordered.next().is_none());
    }
}

/// Both take what they need from an input without an end, and no harm comes from stopping.
fn an_endless_input_is_fine<S: Subject>() {
    let pool = S::pool(2);
    let ordered: Vec<u64> = pool
        .imap(square, 0..)
        .take(500)
        .map(Result::unwrap)
        .collect();
    assert_eq!(ordered, Vec::from_iter((0..500).map(square)));
    let unordered = pool.imap_unordered(square, 0..);
    let mut unordered: Vec<u64> = unordered.take(500).map(Result::unwrap).collect();
    unordered.sort_unstable();
    unordered.dedup();
    assert_eq!(unordered.len(), 500, "each result once");
    assert!(unordered.iter().all(|y| y.isqrt().pow(2) == *y));
    assert_eq!(pool.apply(square, 9).unwrap(), 81);
}

/// Like every iterator, they do nothing until they are asked for an item.
fn nothing_is_taken_before_somebody_asks<S: Subject>() {
    let pool = S::pool(2);
    let taken = Arc::new(AtomicUsize::new(0));
    let input = || {
        let taken = taken.clone();
        (0..10).inspect(move |_| _ = taken.fetch_add(1, Ordering::SeqCst))
    };
    drop(pool.imap(square, input()));
    drop(pool.imap_unordered(square, input()));
    drop(pool.imap_local(square, input()));
    drop(pool.imap_unordered_local(square, input()));
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}

/// However the items are chunked, never more of them have been taken than were given and the
/// buffer allows.
fn no_more_is_taken_than_the_buffer_allows<S: Subject>() {
    let pool = S::pool(2);
    for buffer in [1, 2, 3, 7, 64] {
        for chunk in [None, Some(1), Some(5), Some(1000)] {
            for ordered in [true, false] {
                // Counted before the next one is asked for, which is when it counts as given.
                let given = Arc::new(AtomicUsize::new(0));
                let (theirs, mut taken) = (given.clone(), 0);
                let input = (0..).inspect(move |_| {
                    taken += 1;
                    let ahead = taken - theirs.load(Ordering::SeqCst);
                    assert!(
                        ahead <= buffer,
                        "buffer {buffer}, chunk {chunk:?}: {ahead} ahead"
                    );
                });
                let mut call = pool.call(square).buffer(buffer);
                if let Some(items) = chunk {
                    call = call.chunksize(items);
                }
                let mut results = if ordered {
                    call.imap(input)
                } else {
                    call.imap_unordered(input)
                };
                for _ in 0..200 {
                    results.next().unwrap().unwrap();
                    given.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

/// While nothing has been given, exactly as many items have been taken as the buffer allows, and
/// all of them run at the same time.
fn a_small_buffer_is_used_up<S: Processes>() {
    let pool = &S::pool(2);
    for buffer in [1, 2] {
        let gate = Gate::new();
        let taken = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (theirs, ticket) = (taken.clone(), gate.ticket());
            let input = std::iter::repeat_with(move || {
                theirs.fetch_add(1, Ordering::Relaxed);
                ticket.clone()
            });
            let results = pool
                .call(|ticket: String| file_barrier::pass(&ticket))
                .buffer(buffer);
            let mut results = results.imap(input.take(20));
            let first = scope.spawn(move || {
                results.next().unwrap().unwrap();
                results.count()
            });
            gate.wait_for(buffer);
            let taken = taken.load(Ordering::Relaxed);
            gate.open();
            assert_eq!(taken, buffer);
            assert_eq!(first.join().unwrap(), 19);
        });
    }
}

/// A buffer as large as the pool lets every worker have an item, also when chunks could be larger.
fn a_buffer_keeps_several_workers_at_work<S: Processes>() {
    let pool = &S::pool(3);
    let gate = Gate::new();
    std::thread::scope(|scope| {
        let tickets = vec![gate.ticket(); 12];
        let call = pool
            .call(|ticket: String| file_barrier::pass(&ticket))
            .buffer(3);
        let results = call.imap_unordered(tickets);
        let count = scope.spawn(move || results.count());
        let mut pids = gate.wait_for(3);
        gate.open();
        pids.truncate(3);
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 3);
        assert_eq!(count.join().unwrap(), 12);
    });
}

/// A function that waits at a gate if it is given one, and returns whether.
fn slow_or_not(ticket: Option<String>) -> bool {
    ticket.is_some_and(|ticket| {
        file_barrier::pass(&ticket);
        true
    })
}

/// `imap_unordered` gives what has finished, while the first item still runs.
fn unordered_results_come_as_they_finish<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let items = [Some(gate.ticket()), None, None, None];
    let mut results = pool.call(slow_or_not).chunksize(1).imap_unordered(items);
    for _ in 0..3 {
        assert!(!results.next().unwrap().unwrap());
    }
    gate.open();
    assert!(results.next().unwrap().unwrap());
    assert!(results.next().is_none());
}

/// `imap` keeps what has finished until the first item's result has been given.
fn ordered_results_wait_for_their_turn<S: Processes>() {
    fn note((tally, gate): (String, Option<String>)) -> bool {
        file_barrier::add(&tally, "run");
        slow_or_not(gate)
    }
    let pool = &S::pool(2);
    let gate = Gate::new();
    let tally = Tally::new();
    let items = [Some(gate.ticket()), None, None].map(|gate| (tally.ticket(), gate));
    let results = pool.call(note).chunksize(1).imap(items);
    std::thread::scope(|scope| {
        let results = scope.spawn(move || results.map(Result::unwrap).collect::<Vec<_>>());
        wait_until(|| tally.count() == 3);
        gate.open();
        assert_eq!(results.join().unwrap(), [true, false, false]);
    });
}

/// Items that were taken, but have not begun when the iterator is dropped, are not run.
fn dropping_the_iterator_cancels_the_rest<S: Processes>() {
    fn note((tally, gate): (String, Option<String>)) {
        file_barrier::add(&tally, "run");
        slow_or_not(gate);
    }
    for ordered in [true, false] {
        let pool = S::pool(1);
        let tally = Tally::new();
        let gate = Gate::new();
        let (tallied, waiting) = (tally.ticket(), gate.ticket());
        let items = (0..50).map(move |i| (tallied.clone(), (i == 1).then(|| waiting.clone())));
        let call = pool.call(note).chunksize(1);
        let mut results = if ordered {
            call.imap(items)
        } else {
            call.imap_unordered(items)
        };
        results.next().unwrap().unwrap();
        gate.wait_for(1);
        wait_until(|| pool.stats().submitted > 2);
        drop(results);
        gate.open();
        pool.close();
        pool.join().unwrap();
        assert_eq!(tally.count(), 2);
    }
}

/// A part of an input that panics, without a word of the panic hook's.
fn six_and_no_more(item: u64) -> u64 {
    if item == 6 {
        resume_unwind(Box::new("no more of this"));
    }
    item
}

/// `imap` and `imap_unordered` give the results of the items before the panic, then panic with
/// it, then have ended; the pool goes on.
fn an_input_that_panics_is_heard_of_after_its_items<S: Subject>() {
    let pool = S::pool(2);
    for chunk in [1, 4, 100] {
        for ordered in [true, false] {
            let input = (0..10).map(six_and_no_more);
            let call = pool.call(square).chunksize(chunk);
            let mut results = if ordered {
                call.imap(input)
            } else {
                call.imap_unordered(input)
            };
            let mut values: Vec<u64> = results.by_ref().take(6).map(Result::unwrap).collect();
            values.sort_unstable();
            assert_eq!(values, [0, 1, 4, 9, 16, 25]);
            let panic = catch_unwind(AssertUnwindSafe(|| results.next().is_some()));
            let panic = panic.expect_err("the input has panicked");
            assert_eq!(panic.downcast_ref(), Some(&"no more of this"));
            assert!(results.next().is_none());
        }
    }
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// `map`, `try_map` and `map_async` panic with what their input panics with; the pool goes on.
fn a_map_whose_input_panics_panics<S: Subject>() {
    let pool = S::pool(2);
    let input = || (0..10).map(six_and_no_more);
    let calls: [&dyn Fn(); 3] = [
        &|| drop(pool.map(square, input())),
        &|| drop(pool.try_map(square, input())),
        &|| drop(pool.map_async(square, input())),
    ];
    for call in calls {
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("the input has panicked");
        assert_eq!(panic.downcast_ref(), Some(&"no more of this"));
    }
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}
