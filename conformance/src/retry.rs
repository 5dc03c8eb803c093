//! Items that are tried again, for reasons that the caller gives, and after a while.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use procpool::{Backoff, Pool, TaskError, TaskErrorKind, worker};

use crate::backends::{Builder, Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::wait_until;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_panic_is_a_reason_if_the_caller_says_so,
        nothing_is_tried_more_often_than_retries_says,
        other_failures_are_not_tried_again,
        only_what_failed_of_a_map_runs_again_and_the_order_stays,
        every_kind_of_call_tries_again,
        an_err_is_a_reason_if_the_caller_says_so,
        a_reason_knows_the_error_and_its_item,
        a_reason_that_panics_says_no,
        an_item_has_one_outcome_however_often_it_runs,
        attempts_are_counted_in_metrics,
        an_attempt_waits_for_its_delay,
        an_attempt_that_would_be_too_late_is_not_made,
        a_factor_that_is_no_number_is_refused,
        many_attempts_do_not_nest,
        a_task_tries_again_inside_of_another,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_lost_worker_is_no_reason_if_the_caller_says_so,
        each_attempt_has_its_own_timeout,
        a_deadline_holds_for_all_attempts,
        an_item_that_waits_keeps_no_worker,
        an_item_counts_once_in_stats,
        a_cancel_ends_an_item_that_waits,
        the_end_of_the_pool_ends_an_item_that_waits,
        a_closed_pool_finishes_what_waits,
        a_closed_pool_keeps_its_workers_for_what_is_decided,
        a_cancel_while_a_reason_is_asked_ends_the_item,
        an_attempt_goes_to_the_same_worker,
        an_urgent_attempt_goes_first,
        what_waits_counts_as_queued,
        what_fails_all_the_time_keeps_nobody_from_running,
        a_reason_may_use_the_pool,
        what_waits_can_be_lost_and_cancelled_at_any_time,
    ]
}

const HOUR: Duration = Duration::from_secs(3600);

/// Fails before this many lines are in the tally of the item.
fn fail_until((ticket, times, x): (String, usize, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    assert!(file_barrier::lines(&ticket) >= times, "not yet");
    x
}

/// The same for an item of a map, all of which have one tally.
fn fail_thirds((ticket, x): (String, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    let text = std::fs::read_to_string(&ticket).expect("a tally");
    let runs = text.lines().filter(|line| *line == x.to_string()).count();
    assert!(x % 3 != 0 || runs > 1, "not yet");
    x
}

fn fail((ticket, x): (String, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    panic!("never")
}

fn always(_: &TaskError) -> bool {
    true
}

/// How often each item has run.
fn runs(tally: &Tally) -> BTreeMap<u32, usize> {
    let mut runs = BTreeMap::new();
    for item in tally.numbers() {
        *runs.entry(item).or_default() += 1;
    }
    runs
}

fn a_panic_is_a_reason_if_the_caller_says_so<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let error = pool
        .call(fail_until)
        .retries(9)
        .apply((tally.ticket(), 3, 7));
    assert!(error.unwrap_err().is_panic(), "without being asked to");
    assert_eq!(tally.count(), 1);
    let tally = Tally::new();
    let call = pool
        .call(fail_until)
        .retries(9)
        .retry_if(TaskError::is_panic);
    assert_eq!(call.apply((tally.ticket(), 3, 7)).unwrap(), 7);
    assert_eq!(tally.count(), 3);
}

fn nothing_is_tried_more_often_than_retries_says<S: Subject>() {
    let pool = S::pool(2);
    for retries in [0, 1, 3] {
        let tally = Tally::new();
        let call = pool.call(fail).retries(retries).retry_if(always);
        let error = call.apply((tally.ticket(), 1)).unwrap_err();
        assert_eq!(error.panic_message(), Some("never"));
        assert_eq!(tally.count(), 1 + retries as usize);
    }
}

fn other_failures_are_not_tried_again<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let call = pool.call(fail).retries(9).retry_if(move |error| {
        assert!(error.is_panic());
        count.fetch_add(1, Ordering::SeqCst);
        false
    });
    assert!(call.apply((tally.ticket(), 1)).unwrap_err().is_panic());
    assert_eq!((tally.count(), asked.load(Ordering::SeqCst)), (1, 1));
}

fn only_what_failed_of_a_map_runs_again_and_the_order_stays<S: Subject>() {
    let pool = S::pool(2);
    for chunk in [1, 4, 100] {
        let tally = Tally::new();
        let items = (0..40).map(|x| (tally.ticket(), x));
        let call = pool.call(fail_thirds).chunksize(chunk).retries(1);
        assert_eq!(
            call.retry_if(always).map(items).unwrap(),
            Vec::from_iter(0..40)
        );
        let expected = (0..40).map(|x| (x, if x % 3 == 0 { 2 } else { 1 }));
        assert_eq!(runs(&tally), BTreeMap::from_iter(expected));
    }
}

fn every_kind_of_call_tries_again<S: Subject>() {
    let pool = S::pool(2);
    let all = Vec::from_iter(0..30);
    let check = |run: &dyn Fn(Vec<(String, u64)>) -> Vec<u64>| {
        let tally = Tally::new();
        let items = (0..30).map(|x| (tally.ticket(), x)).collect();
        assert_eq!(run(items), all);
        assert_eq!(tally.count(), 40);
    };
    let call = || {
        let call = pool.call(fail_thirds).retries(1).chunksize(4);
        call.retry_if(always)
    };
    check(&|items| call().map(items).unwrap());
    check(&|items| call().map_async(items).get().unwrap());
    check(&|items| {
        let outcomes = call().try_map(items).into_iter();
        outcomes.map(Result::unwrap).collect()
    });
    check(&|items| call().imap(items).map(Result::unwrap).collect());
    check(&|items| call().imap_local(items).map(Result::unwrap).collect());
    check(&|items| {
        let outcomes = call().imap_unordered(items);
        let mut all: Vec<u64> = outcomes.map(Result::unwrap).collect();
        all.sort_unstable();
        all
    });
    check(&|items| {
        let outcomes = call().measured().map(items).into_iter();
        outcomes.map(|it| it.outcome.unwrap()).collect()
    });
    check(&|items| {
        let handles = items.into_iter().map(|item| call().apply_async(item));
        let handles = Vec::from_iter(handles).into_iter();
        handles.map(|handle| handle.get().unwrap()).collect()
    });
}

fn an_err_is_a_reason_if_the_caller_says_so<S: Subject>() {
    let fetch = |(ticket, x): (String, u64)| -> Result<u64, (u16, String)> {
        file_barrier::add(&ticket, x);
        let text = std::fs::read_to_string(&ticket).expect("a tally");
        let runs = text.lines().filter(|line| *line == x.to_string()).count();
        match (x % 4, runs) {
            (0, 1..3) => Err((503, "later".to_owned())),
            (1, _) => Err((404, "never".to_owned())),
            _ => Ok(x),
        }
    };
    let pool = S::pool(2);
    let tally = Tally::new();
    let items = || (0..12).map(|x| (tally.ticket(), x));
    // It is a value, so nothing else asks for it.
    let call = pool.call(fetch).retries(5).retry_if(always);
    let plain = call.try_map(items().take(1));
    assert_eq!(plain, [Ok(Err((503, "later".to_owned())))]);
    let tally = Tally::new();
    let items = || (0..12).map(|x| (tally.ticket(), x));
    let call = pool.call(fetch).retries(5).chunksize(5).count_errors();
    let fetched = call.retry_errors(|error: &(u16, String)| error.0 == 503);
    for (x, outcome) in (0..12).zip(fetched.try_map(items())) {
        let expected = match x % 4 {
            1 => Err((404, "never".to_owned())),
            _ => Ok(x),
        };
        assert_eq!(outcome, Ok(expected));
    }
    let expected = (0..12).map(|x| (x, if x % 4 == 0 { 3 } else { 1 }));
    assert_eq!(runs(&tally), BTreeMap::from_iter(expected));
}

fn a_reason_knows_the_error_and_its_item<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    let call = pool.call(fail_thirds).retries(1).chunksize(2);
    let call = call.retry_if(move |error| {
        let item = (error.index(), error.panic_message().map(str::to_owned));
        note.lock().unwrap().push(item);
        true
    });
    call.map((0..7).map(|x| (tally.ticket(), x))).unwrap();
    let message = || Some("not yet".to_owned());
    seen.lock().unwrap().sort();
    let expected = [0, 3, 6].map(|index| (Some(index), message()));
    assert_eq!(*seen.lock().unwrap(), expected);
    // A single task has no index.
    let tally = Tally::new();
    let call = pool.call(fail_until).retries(1);
    let call = call.retry_if(|error| error.index().is_none());
    assert_eq!(call.apply((tally.ticket(), 2, 5)).unwrap(), 5);
}

fn a_reason_that_panics_says_no<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(fail).retries(9).retry_if(|_| panic!("a reason"));
    let error = call.apply((tally.ticket(), 1)).unwrap_err();
    assert_eq!(error.panic_message(), Some("never"));
    assert_eq!(tally.count(), 1);
    let fails = |_: u64| -> Result<u64, u64> { Err(3) };
    let call = pool.call(fails).retries(9);
    let call = call.retry_errors(|_: &u64| panic!("a reason"));
    assert_eq!(call.map(0..3).unwrap(), [Err(3); 3]);
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}

fn an_item_has_one_outcome_however_often_it_runs<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let called = Arc::new(AtomicU32::new(0));
    let call = pool.call(fail_thirds).retries(1).chunksize(3);
    let handle = call
        .retry_if(always)
        .map_async((0..9).map(|x| (tally.ticket(), x)));
    let count = called.clone();
    handle.on_complete(move |all| {
        assert_eq!(all.as_ref().unwrap().len(), 9);
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(handle.get().unwrap().len(), 9);
    wait_until(|| called.load(Ordering::SeqCst) == 1);
    pool.close();
    pool.join().unwrap();
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

fn attempts_are_counted_in_metrics<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(fail_thirds).retries(3).chunksize(5).measured();
    let all = call
        .retry_if(always)
        .map((0..10).map(|x| (tally.ticket(), x)));
    for (x, measured) in (0..).zip(&all) {
        let attempt = if x % 3 == 0 { 2 } else { 1 };
        assert_eq!(measured.metrics.attempt, attempt, "item {x}");
        assert!(measured.metrics.run.is_some());
        assert_eq!(measured.outcome, Ok(x));
    }
}

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

/// Nothing of an attempt is left on the stack of the thread when the next one begins.
fn many_attempts_do_not_nest<S: Subject>() {
    let pool = S::pool(2);
    let call = pool.call(|x: u64| -> Result<u64, u64> { Err(x) });
    let call = call.retries(20_000).retry_errors(|_: &u64| true);
    assert_eq!(call.apply(3).unwrap(), Err(3));
}

/// Where the tasks run in the thread that calls, an attempt of one is not that of the other.
fn a_task_tries_again_inside_of_another<S: Subject>() {
    let pool = S::pool(2);
    let outer = |(outer, inner): (String, String)| {
        file_barrier::add(&outer, 1);
        let pool = procpool::SerialPool::new();
        let call = pool.call(fail_until).retries(2).retry_if(always);
        let x = call.apply((inner, 3, 7)).expect("the third time");
        assert!(file_barrier::lines(&outer) >= 2, "not yet");
        x
    };
    let tallies = [Tally::new(), Tally::new()];
    let call = pool.call(outer).retries(2).retry_if(always);
    let [outer, inner] = &tallies;
    assert_eq!(call.apply((outer.ticket(), inner.ticket())).unwrap(), 7);
    assert_eq!([outer.count(), inner.count()], [2, 4]);
}

fn an_item_counts_once_in_stats<S: Processes>() {
    let pool = S::pool(2);
    let counts = || {
        let stats = pool.stats();
        (stats.submitted, stats.succeeded, stats.failed)
    };
    let tally = Tally::new();
    let call = pool.call(fail_thirds).retries(1).chunksize(4);
    call.retry_if(always)
        .map((0..9).map(|x| (tally.ticket(), x)))
        .unwrap();
    assert_eq!(counts(), (9, 9, 0));
    let tally = Tally::new();
    let call = pool.call(fail).retries(2).retry_if(always);
    let outcomes = call.try_map((0..2).map(|x| (tally.ticket(), x)));
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(counts(), (11, 9, 2));
    assert_eq!(pool.stats().failed_as(TaskErrorKind::Panicked), 2);
    let returns = |x: u64| -> Result<u64, u64> { Err(x) };
    let call = pool.call(returns).retries(2).count_errors();
    let returned = call.retry_errors(|_: &u64| true).map(0..4);
    assert_eq!(returned.unwrap().len(), 4);
    assert_eq!(pool.stats().errors_returned, 4);
}

fn exit_until((ticket, times): (String, usize)) -> u32 {
    file_barrier::add(&ticket, 0);
    if file_barrier::lines(&ticket) < times {
        std::process::exit(3);
    }
    std::process::id()
}

fn a_lost_worker_is_no_reason_if_the_caller_says_so<S: Processes>() {
    let pool = S::quiet_pool(2);
    let tally = Tally::new();
    let call = pool.call(exit_until).retries(3);
    call.apply((tally.ticket(), 3)).expect("the third time");
    let tally = Tally::new();
    let call = pool
        .call(exit_until)
        .retries(3)
        .retry_if(TaskError::is_panic);
    let error = call.apply((tally.ticket(), 3)).unwrap_err();
    assert_eq!(error.exit_code(), Some(3));
    assert_eq!(tally.count(), 1);
    // And with it, and a delay, it is.
    let tally = Tally::new();
    let call = pool.call(exit_until).retries(3);
    let call = call.backoff(Duration::from_millis(5));
    call.apply((tally.ticket(), 3)).expect("the third time");
    assert_eq!(tally.count(), 3);
}

fn each_attempt_has_its_own_timeout<S: Processes>() {
    let hang_until = |(ticket, times): (String, usize)| {
        file_barrier::add(&ticket, 0);
        while file_barrier::lines(&ticket) < times {
            thread::park();
        }
    };
    let pool = S::quiet_pool(2);
    let tally = Tally::new();
    let call = pool.call(hang_until).timeout(Duration::from_millis(150));
    let call = call.retries(2).retry_if(TaskError::is_timeout);
    call.apply((tally.ticket(), 3)).expect("the third time");
    assert_eq!(tally.count(), 3);
}

fn a_deadline_holds_for_all_attempts<S: Processes>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(fail).retries(u32::MAX).retry_if(always);
    let call = call.deadline(Duration::from_millis(200));
    let error = call.backoff(Duration::from_millis(1));
    let error = error.apply((tally.ticket(), 1)).unwrap_err();
    assert!(error.is_panic() || error.is_timeout(), "{error}");
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    let before = tally.count();
    pool.map(|x: u64| x, 0..100).unwrap();
    assert_eq!(tally.count(), before, "there was no attempt after that");
}

fn an_item_that_waits_keeps_no_worker<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool.call(fail).retries(1).retry_if(always).backoff(HOUR);
    let waits = call.apply_async((tally.ticket(), 1));
    wait_until(|| tally.count() == 1);
    assert_eq!(pool.map(|x: u64| x, 0..100).unwrap().len(), 100);
    assert!(!waits.is_ready());
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running), (1, 0));
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

/// An item is no one's while the call is asked about it: the workers must not go for that.
fn a_closed_pool_keeps_its_workers_for_what_is_decided<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    // It does not fail before it was submitted: the thread that submits may be the one that asks.
    let (submitted, asked) = (Gate::new(), Gate::new());
    let ticket = asked.ticket();
    let wait_and_fail = |(gate, job): (String, (String, usize, u64))| {
        file_barrier::pass(&gate);
        fail_until(job)
    };
    let call = pool.call(wait_and_fail).retries(1).retry_if(move |_| {
        file_barrier::pass(&ticket);
        true
    });
    let item = call.apply_async((submitted.ticket(), (tally.ticket(), 2, 7)));
    submitted.open();
    asked.wait_for(1);
    pool.close();
    assert!(!pool.join_timeout(Duration::from_millis(50)).unwrap());
    asked.open();
    pool.join().unwrap();
    assert_eq!(item.get().unwrap(), 7);
}

fn a_cancel_while_a_reason_is_asked_ends_the_item<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let (submitted, asked) = (Gate::new(), Gate::new());
    let call = || {
        let ticket = asked.ticket();
        let wait_and_fail = |(gate, job): (String, (String, u64))| {
            file_barrier::pass(&gate);
            fail(job)
        };
        pool.call(wait_and_fail).retries(1).retry_if(move |_| {
            file_barrier::pass(&ticket);
            true
        })
    };
    let job = |item| (submitted.ticket(), (tally.ticket(), item));
    let one = call().apply_async(job(1));
    let many = call().map_async([job(2)]);
    submitted.open();
    asked.wait_for(1);
    one.cancel();
    many.cancel();
    assert!(one.get().unwrap_err().is_cancelled());
    asked.open();
    assert!(many.get().unwrap_err().is_cancelled());
    pool.close();
    pool.join().unwrap();
    assert!(runs(&tally).values().all(|&runs| runs == 1));
    assert_eq!(pool.stats().queued, 0);
}

fn an_attempt_goes_to_the_same_worker<S: Processes>() {
    let note = |ticket: String| {
        file_barrier::add(&ticket, std::process::id());
        assert!(file_barrier::lines(&ticket) >= 3, "not yet");
    };
    let pool = S::pool(3);
    for key in 0..6 {
        let tally = Tally::new();
        let call = pool.call(note).retries(2).retry_if(always).on_worker(key);
        let call = call.backoff(Duration::from_millis(1));
        call.apply(tally.ticket()).unwrap();
        let pids = runs(&tally);
        assert_eq!(Vec::from_iter(pids.values()), [&3], "{pids:?}");
    }
    let tally = Tally::new();
    let note = |ticket: String| {
        file_barrier::add(&ticket, std::process::id());
        let mine = std::process::id().to_string();
        let text = std::fs::read_to_string(&ticket).expect("a tally");
        assert!(text.lines().filter(|it| **it == mine).count() >= 2);
        worker::current().expect("a worker").pid()
    };
    let call = pool.call(note).retries(1).retry_if(always);
    let pids = call.run_on_each(tally.ticket());
    let pids = BTreeMap::from_iter(pids.into_iter().map(|pid| (pid.unwrap(), 2)));
    assert_eq!(runs(&tally), pids);
}

fn an_urgent_attempt_goes_first<S: Processes>() {
    let pool = S::pool(1);
    let [begun, others] = [Gate::new(), Gate::new()];
    let order = Tally::new();
    let note = |(gate, ticket, x): (String, String, u64)| {
        file_barrier::pass(&gate);
        file_barrier::add(&ticket, x);
    };
    let urgent = |(gate, ticket): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&ticket, 100);
        assert!(file_barrier::lines(&ticket) >= 2, "not yet");
    };
    let begins = others.ticket();
    // The worker is at the first of the others, and everything else waits for it.
    let call = pool.call(urgent).priority(1).retries(1).retry_if(move |_| {
        wait_until(|| file_barrier::lines(&begins) == 1);
        true
    });
    let urgent = call.apply_async((begun.ticket(), order.ticket()));
    begun.wait_for(1);
    let items = (0..20).map(|x| (others.ticket(), order.ticket(), x));
    let all = pool.map_async(note, items);
    begun.open();
    wait_until(|| pool.stats().queued == 20);
    others.open();
    urgent.get().unwrap();
    all.get().unwrap();
    assert_eq!(order.numbers()[..3], [100, 0, 100]);
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

fn what_fails_all_the_time_keeps_nobody_from_running<S: Processes>() {
    let pool = S::pool(2);
    let call = pool.call(|x: u64| -> Result<u64, u64> { Err(x) });
    let call = call.retries(u32::MAX).retry_errors(|_: &u64| true);
    let storm = call.chunksize(1).map_async(0..8);
    for x in 0..50 {
        assert_eq!(pool.apply(|x: u64| x + 1, x).unwrap(), x + 1);
    }
    assert_eq!(pool.map(|x: u64| x + 1, 0..100).unwrap().len(), 100);
    assert!(!storm.is_ready());
    storm.cancel();
    assert!(storm.get().unwrap_err().is_cancelled());
    pool.close();
    pool.join().unwrap();
}

fn a_reason_may_use_the_pool<S: Processes>() {
    let pool = Arc::new(S::pool(2));
    let tally = Tally::new();
    let (other, handles) = (Arc::downgrade(&pool), Arc::new(Mutex::new(Vec::new())));
    let new = handles.clone();
    let call = pool.call(fail_thirds).retries(1).chunksize(4);
    let call = call.retry_if(move |_| {
        let Some(pool) = other.upgrade() else {
            return false;
        };
        new.lock().unwrap().push(pool.apply_async(|x: u64| x, 1));
        pool.stats().submitted > 0
    });
    let items = (0..9).map(|x| (tally.ticket(), x));
    assert_eq!(call.map(items).unwrap(), Vec::from_iter(0..9));
    let handles = std::mem::take(&mut *handles.lock().unwrap());
    assert_eq!(handles.len(), 3);
    for handle in handles {
        assert_eq!(handle.get().unwrap(), 1);
    }
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
