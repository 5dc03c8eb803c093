//! When items are tried again: after a delay, in which they keep nobody from anything.

use std::thread;
use std::time::{Duration, Instant};

use procpool::{Backoff, Pool, TaskErrorKind};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::Tally;
use crate::procfs::wait_until;
use crate::retry::{always, fail, fail_thirds, fail_until};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        an_attempt_waits_for_its_delay,
        an_attempt_that_would_be_too_late_is_not_made,
        a_factor_that_is_no_number_is_refused,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        an_item_that_waits_keeps_no_worker,
        a_cancel_ends_an_item_that_waits,
        the_end_of_the_pool_ends_an_item_that_waits,
        a_closed_pool_finishes_what_waits,
        what_waits_counts_as_queued,
        what_waits_can_be_lost_and_cancelled_at_any_time,
    ]
}

const HOUR: Duration = Duration::from_secs(3600);

fn an_attempt_waits_for_its_delay<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let backoff = Backoff::exponential(Duration::from_millis(20));
    let call = pool.call(fail_until).retries(3).retry_if(always);
    let begin = Instant::now();
    let value = call.backoff(backoff).apply((tally.ticket(), 4, 7));
    assert_eq!(value.unwrap(), 7);
    assert!(begin.elapsed() >= Duration::from_millis(20 + 40 + 80));
    // Of a map, each item waits for itself.
    let tally = Tally::new();
    let call = pool.call(fail_thirds).retries(1).retry_if(always);
    let begin = Instant::now();
    let call = call.backoff(Duration::from_millis(50));
    let items = (0..10).map(|x| (tally.ticket(), x));
    assert_eq!(call.map(items).unwrap(), Vec::from_iter(0..10));
    assert!(begin.elapsed() >= Duration::from_millis(50));
    // With jitter, it is some time.
    let tally = Tally::new();
    let call = pool.call(fail_until).retries(3).retry_if(always);
    let call = call.backoff(Backoff::constant(Duration::from_millis(5)).jitter(true));
    assert_eq!(call.apply((tally.ticket(), 4, 7)).unwrap(), 7);
}

fn an_attempt_that_would_be_too_late_is_not_made<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(fail).retries(9).retry_if(always).backoff(HOUR);
    let error = call.deadline(HOUR / 2).apply((tally.ticket(), 1));
    assert!(error.unwrap_err().is_panic(), "what it has failed with");
    assert_eq!(tally.count(), 1);
}

fn a_factor_that_is_no_number_is_refused<S: Subject>() {
    let pool = S::pool(1);
    for factor in [0.0, -2.0, f64::NAN, f64::INFINITY] {
        let backoff = Backoff::exponential(HOUR).factor(factor);
        let error = pool.call(|x: u64| x).backoff(backoff).apply(1).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::Invalid);
    }
}

fn an_item_that_waits_keeps_no_worker<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool.call(fail).retries(1).retry_if(always).backoff(HOUR);
    let waits = call.apply_async((tally.ticket(), 1));
    wait_until(|| tally.count() == 1);
    assert_eq!(pool.map(|x: u64| x, 0..100).unwrap().len(), 100);
    assert!(!waits.is_ready());
    wait_until(|| pool.stats().queued == 1);
    let stats = pool.stats();
    assert_eq!(stats.running, 0);
    assert_eq!((stats.succeeded, stats.failed), (100, 0));
    waits.cancel();
    assert!(waits.get().unwrap_err().is_cancelled());
    assert_eq!(pool.stats().queued, 0);
}

fn a_cancel_ends_an_item_that_waits<S: Processes>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = || {
        let call = pool.call(fail).retries(1).retry_if(always);
        call.backoff(HOUR).chunksize(2)
    };
    let one = call().apply_async((tally.ticket(), 1));
    let many = call().map_async((0..5).map(|x| (tally.ticket(), x)));
    let killed = call().map_async((0..5).map(|x| (tally.ticket(), x)));
    let dropped = call()
        .map_async((0..3).map(|x| (tally.ticket(), x)))
        .cancel_on_drop();
    let mut lazy = call().imap((0..2).map(|x| (tally.ticket(), x)).collect::<Vec<_>>());
    thread::scope(|scope| {
        scope.spawn(|| assert!(lazy.next().is_none_or(|it| it.is_err())));
        wait_until(|| tally.count() == 16 && pool.stats().queued == 16);
        one.cancel();
        many.cancel();
        killed.kill();
        drop(dropped);
        wait_until(|| pool.stats().queued == 2);
        assert!(one.get().unwrap_err().is_cancelled());
        assert!(many.get().unwrap_err().is_cancelled());
        assert!(killed.get().unwrap_err().is_cancelled());
        pool.terminate();
    });
    pool.join().unwrap();
    assert_eq!(tally.count(), 16);
}

fn the_end_of_the_pool_ends_an_item_that_waits<S: Processes>() {
    for is_dropped in [false, true] {
        let pool = S::pool(2);
        let tally = Tally::new();
        let call = pool.call(fail).retries(1).retry_if(always).backoff(HOUR);
        let waits = call.map_async((0..3).map(|x| (tally.ticket(), x)));
        wait_until(|| tally.count() == 3);
        if is_dropped {
            drop(pool);
        } else {
            pool.terminate();
            pool.join().unwrap();
        }
        assert!(waits.get().unwrap_err().is_cancelled());
    }
}

fn a_closed_pool_finishes_what_waits<S: Processes>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(fail_thirds).retries(1).retry_if(always);
    let call = call.backoff(Duration::from_millis(100)).chunksize(3);
    let waits = call.map_async((0..10).map(|x| (tally.ticket(), x)));
    pool.close();
    pool.join().unwrap();
    assert!(waits.is_ready(), "join has waited for it");
    assert_eq!(waits.get().unwrap(), Vec::from_iter(0..10));
    assert_eq!(tally.count(), 14);
}

fn what_waits_counts_as_queued<S: Processes>() {
    let pool = S::builder().processes(1).max_queued(1).build();
    let tally = Tally::new();
    let call = pool.call(fail).retries(1).retry_if(always).backoff(HOUR);
    let waits = call.apply_async((tally.ticket(), 1));
    wait_until(|| pool.stats().queued == 1 && tally.count() == 1);
    assert!(
        pool.try_apply_async(|x: u64| x, 1).is_err(),
        "there is no room"
    );
    waits.cancel();
    assert!(waits.get().unwrap_err().is_cancelled());
    let next = pool.try_apply_async(|x: u64| x, 1).expect("room");
    assert_eq!(next.get().unwrap(), 1);
}

/// Whatever comes first, each item has one outcome, and the pool ends.
fn what_waits_can_be_lost_and_cancelled_at_any_time<S: Processes>() {
    let chance = |x: u64| -> Result<u64, u64> {
        match x % 5 {
            0 => Err(x),
            1 => panic!("by chance"),
            _ => Ok(x),
        }
    };
    let pool = S::pool(2);
    for round in 0..12_u32 {
        let call = || {
            let call = pool.call(chance).retries(2).chunksize(3);
            let call = call.retry_if(always).retry_errors(|_: &u64| true);
            let delay = Duration::from_micros(u64::from(round) * 300);
            call.backoff(Backoff::exponential(delay).jitter(true))
        };
        let cancelled = call().map_async(0..40);
        let kept = call().map_async(0..40);
        let dropped = call().map_async(0..40).kill_on_drop();
        let lazy: Vec<_> = call().imap_unordered(0..20).collect();
        assert_eq!(lazy.len(), 20);
        cancelled.cancel();
        drop(dropped);
        let error = kept.get().unwrap_err();
        assert_eq!(
            (error.index(), error.panic_message()),
            (Some(1), Some("by chance"))
        );
        cancelled.wait();
    }
    pool.close();
    pool.join().unwrap();
    let stats = pool.stats();
    assert_eq!(stats.submitted, stats.succeeded + stats.failed);
    assert_eq!((stats.queued, stats.running), (0, 0));
}
