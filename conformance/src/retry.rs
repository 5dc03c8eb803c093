//! Items that are tried again, for reasons that the caller gives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use procpool::{Broadcast, Call, Pool, Stateless, Stats, TaskError, TaskErrorKind};

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
        an_attempt_has_all_that_the_first_one_had,
        many_attempts_do_not_nest,
        a_task_tries_again_inside_of_another,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_lost_worker_is_no_reason_if_the_caller_says_so,
        each_attempt_has_its_own_timeout,
        a_deadline_holds_for_all_attempts,
        an_item_counts_once_in_stats,
        a_closed_pool_keeps_its_workers_for_what_is_decided,
        a_closed_pool_replaces_workers_for_what_is_decided,
        a_cancel_while_a_reason_is_asked_ends_the_item,
        nobody_asks_about_what_was_ended_on_purpose,
        the_end_of_the_pool_while_a_reason_is_asked_ends_the_item,
        an_attempt_goes_to_the_same_worker,
        an_attempt_goes_first,
        what_fails_all_the_time_keeps_nobody_from_running,
        a_reason_may_use_the_pool,
        what_a_reason_has_may_wait_for_the_pool_when_it_goes,
    ]
}

const HOUR: Duration = Duration::from_secs(3600);

/// Fails before this many lines are in the tally of the item.
pub(crate) fn fail_until((ticket, times, x): (String, usize, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    assert!(file_barrier::lines(&ticket) >= times, "not yet");
    x
}

/// The same for an item of a map, all of which have one tally.
pub(crate) fn fail_thirds((ticket, x): (String, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    let text = std::fs::read_to_string(&ticket).expect("a tally");
    let runs = text.lines().filter(|line| *line == x.to_string()).count();
    assert!(x % 3 != 0 || runs > 1, "not yet");
    x
}

pub(crate) fn fail((ticket, x): (String, u64)) -> u64 {
    file_barrier::add(&ticket, x);
    panic!("never")
}

pub(crate) fn always(_: &TaskError) -> bool {
    true
}

fn pass(ticket: String) {
    file_barrier::pass(&ticket);
}

/// How often each item has run.
pub(crate) fn runs(tally: &Tally) -> BTreeMap<u32, usize> {
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

fn an_attempt_has_all_that_the_first_one_had<S: Subject>() {
    type Shared = Broadcast<[u64]>;
    let pool = S::pool(2);
    let [first, second] = [2, 3].map(|x| pool.broadcast(vec![x; 10_000]).unwrap());
    let product = |context: &Shared, (item, ticket): (Shared, String)| {
        file_barrier::add(&ticket, 1);
        assert!(file_barrier::lines(&ticket) >= 3, "not yet");
        context[9] * item[9]
    };
    let tally = Tally::new();
    let call = pool.call(product).context(first).retries(2);
    let products = call.retry_if(always).map([(second, tally.ticket())]);
    assert_eq!(products.unwrap(), [6]);
}

/// Nothing of an attempt is left on the stack of the thread when the next one begins.
fn many_attempts_do_not_nest<S: Subject>() {
    let pool = S::pool(2);
    let call = pool.call(|x: u64| -> Result<u64, u64> { Err(x) });
    let call = call.retries(S::MANY_ATTEMPTS).retry_errors(|_: &u64| true);
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

/// An item that fails when it is let, and a reason that is asked for until it is let. (It does not
/// fail before it was submitted: the thread that submits may be the one that asks.)
struct Undecided {
    submitted: Gate,
    asked: Gate,
    tally: Tally,
}

/// What [`Undecided`]'s items need: the gate, the tally, and their number, a multiple of three.
type Job = (String, String, u64);

fn wait_and_fail_once((gate, tally, x): Job) -> u64 {
    file_barrier::pass(&gate);
    fail_thirds((tally, x))
}

impl Undecided {
    fn new() -> Self {
        let [submitted, asked] = [Gate::new(), Gate::new()];
        Self {
            submitted,
            asked,
            tally: Tally::new(),
        }
    }

    fn call(&self, pool: &impl Pool) -> Call<impl Fn(Job) -> u64 + Stateless> {
        let ticket = self.asked.ticket();
        let call = pool.call(wait_and_fail_once).retries(1);
        call.retry_if(move |_| {
            file_barrier::pass(&ticket);
            true
        })
    }

    fn job(&self, item: u64) -> Job {
        (self.submitted.ticket(), self.tally.ticket(), item)
    }

    /// Waits until the call is asked about an item.
    fn wait(&self) {
        self.submitted.open();
        self.asked.wait_for(1);
    }
}

/// An item is no one's while the call is asked about it: the workers must not go for that.
fn a_closed_pool_keeps_its_workers_for_what_is_decided<S: Processes>() {
    let pool = S::pool(1);
    let undecided = Undecided::new();
    let item = undecided.call(&pool).apply_async(undecided.job(9));
    undecided.wait();
    pool.close();
    assert!(!pool.join_timeout(Duration::from_millis(50)).unwrap());
    undecided.asked.open();
    pool.join().unwrap();
    assert_eq!(item.get().unwrap(), 9);
    assert_eq!(pool.stats().workers_started, 1);
}

/// Each attempt has a worker of its own, and there is no other work: the last worker goes while the
/// call is asked about its item.
fn a_closed_pool_replaces_workers_for_what_is_decided<S: Processes>() {
    let pool = S::builder().processes(1).max_tasks_per_child(1).build();
    let [begun, first, second] = [Gate::new(), Gate::new(), Gate::new()];
    let tally = Tally::new();
    let job = |(gate, tally): (String, String)| {
        file_barrier::pass(&gate);
        fail_until((tally, 4, 7))
    };
    let gates = Mutex::new(vec![second.ticket(), first.ticket()]);
    let call = pool.call(job).retries(3).retry_if(move |_| {
        let gate = gates.lock().unwrap().pop();
        gate.inspect(|gate| file_barrier::pass(gate));
        true
    });
    let item = call.apply_async((begun.ticket(), tally.ticket()));
    thread::scope(|scope| {
        let reading = scope.spawn(|| item.get().unwrap());
        begun.open();
        first.wait_for(1);
        pool.close();
        for gate in [first, second] {
            gate.wait_for(1);
            assert!(!pool.join_timeout(Duration::from_millis(50)).unwrap());
            gate.open();
        }
        pool.join().unwrap();
        assert_eq!(reading.join().expect("no panic"), 7);
    });
    assert_eq!(pool.stats().workers_started, 4);
}

fn a_cancel_while_a_reason_is_asked_ends_the_item<S: Processes>() {
    let pool = S::pool(1);
    let undecided = Undecided::new();
    // It would wait for long.
    let call = || undecided.call(&pool).backoff(HOUR);
    let one = call().apply_async(undecided.job(3));
    let many = call().map_async([undecided.job(6)]);
    undecided.wait();
    one.cancel();
    many.cancel();
    assert!(one.get().unwrap_err().is_cancelled());
    undecided.asked.open();
    assert!(many.get().unwrap_err().is_cancelled());
    pool.close();
    pool.join().unwrap();
    assert!(runs(&undecided.tally).values().all(|&runs| runs == 1));
    assert_eq!(pool.stats().queued, 0);
}

fn nobody_asks_about_what_was_ended_on_purpose<S: Processes>() {
    let pool = S::quiet_pool(1);
    let undecided = Undecided::new();
    let cancelled = undecided.call(&pool).apply_async(undecided.job(3));
    undecided.submitted.wait_for(1);
    cancelled.cancel();
    undecided.submitted.open();
    assert!(cancelled.get().unwrap_err().is_panic(), "its own end");
    // What has failed by itself would be asked about.
    let never = Gate::new();
    let job = || (never.ticket(), never.ticket(), 3);
    let late = undecided.call(&pool).deadline(Duration::from_millis(50));
    let error = late.apply(job()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded);
    let ended = undecided.call(&pool).map_async([job(), job()]);
    never.wait_for(2);
    pool.terminate();
    assert!(ended.get().unwrap_err().is_cancelled());
    let error = undecided.call(&pool).apply(job()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Closed);
    pool.join().unwrap();
    assert!(undecided.asked.arrivals().is_empty());
}

fn the_end_of_the_pool_while_a_reason_is_asked_ends_the_item<S: Processes>() {
    let pool = S::pool(1);
    let undecided = Undecided::new();
    let item = undecided.call(&pool).apply_async(undecided.job(3));
    undecided.wait();
    pool.terminate();
    undecided.asked.open();
    pool.join().unwrap();
    assert!(item.get().unwrap_err().is_cancelled());
    assert_eq!(undecided.tally.count(), 1);
}

/// Also where that has something else to do first, and others have not.
fn an_attempt_goes_to_the_same_worker<S: Processes>() {
    let pool = S::pool(3);
    let undecided = Undecided::new();
    let note = |(gate, ticket): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&ticket, std::process::id());
        assert!(file_barrier::lines(&ticket) >= 2, "not yet");
    };
    let ticket = undecided.asked.ticket();
    let call = pool.call(note).retries(1).on_worker(7).retry_if(move |_| {
        file_barrier::pass(&ticket);
        true
    });
    let tickets = (undecided.submitted.ticket(), undecided.tally.ticket());
    let item = call.apply_async(tickets);
    let busy = Gate::new();
    let other = pool.call(pass).on_worker(7).apply_async(busy.ticket());
    undecided.wait();
    busy.wait_for(1);
    undecided.asked.open();
    wait_until(|| pool.stats().queued == 1);
    assert_eq!(pool.map(|x: u64| x, 0..100).unwrap().len(), 100);
    busy.open();
    item.get().unwrap();
    other.get().unwrap();
    let pids = runs(&undecided.tally);
    assert_eq!(Vec::from_iter(pids.values()), [&2], "{pids:?}");
}

/// It is ahead of others of its priority, and of what is less urgent and waits in the worker.
fn an_attempt_goes_first<S: Processes>() {
    let note = |(gate, ticket, x): (String, String, u64)| {
        file_barrier::pass(&gate);
        file_barrier::add(&ticket, x);
    };
    let fail_once = |(gate, ticket): (String, String)| {
        file_barrier::pass(&gate);
        file_barrier::add(&ticket, 100);
        assert!(file_barrier::lines(&ticket) >= 2, "not yet");
    };
    // At most, so many of the others are before it.
    for (priority, most) in [(1, 1), (0, 5)] {
        let pool = S::pool(1);
        let [begun, others] = [Gate::new(), Gate::new()];
        let order = Tally::new();
        let begins = others.ticket();
        let is_asked = Arc::new(AtomicBool::new(false));
        let asked = is_asked.clone();
        // The worker is at the first of the others, and everything else waits for it.
        let call = pool.call(fail_once).priority(priority).retries(1);
        let call = call.retry_if(move |_| {
            wait_until(|| file_barrier::lines(&begins) == 1);
            asked.store(true, Ordering::SeqCst);
            true
        });
        let attempts = call.apply_async((begun.ticket(), order.ticket()));
        begun.wait_for(1);
        let items = (0..20).map(|x| (others.ticket(), order.ticket(), x));
        let all = pool.call(note).chunksize(1).map_async(items);
        begun.open();
        // Until it is decided, the item is not among these.
        let open = |stats: Stats| stats.queued + stats.running;
        wait_until(|| is_asked.load(Ordering::SeqCst) && open(pool.stats()) == 21);
        others.open();
        attempts.get().unwrap();
        all.get().unwrap();
        let order = order.numbers();
        let before = order.iter().skip(1).position(|x| *x == 100);
        assert!(before.is_some_and(|before| before <= most), "{order:?}");
    }
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

/// Also where the queue has a bound: who asks does not wait for room.
fn a_reason_may_use_the_pool<S: Processes>() {
    let pool = Arc::new(S::builder().processes(2).max_queued(1).build());
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

/// It goes with the call's last outcome, in the thread that takes that in: the one that waits for
/// the results of all.
fn what_a_reason_has_may_wait_for_the_pool_when_it_goes<S: Processes>() {
    struct Session(Arc<dyn Fn() + Send + Sync>);
    impl Drop for Session {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let pool = Arc::new(S::pool(1));
    let (answers, answer) = mpsc::channel();
    let other = pool.clone();
    let session = Session(Arc::new(move || {
        let results = other.map(|x: u64| 2 * x, 0..100);
        answers.send(results.unwrap().len()).unwrap();
    }));
    let panics = |x: u64| -> u64 { panic!("{x}") };
    let call = pool.call(panics).retries(1);
    let call = call.retry_if(move |_| {
        let Session(_) = &session;
        true
    });
    assert_eq!(call.apply(1).unwrap_err().kind(), TaskErrorKind::Panicked);
    assert_eq!(answer.recv().unwrap(), 100);
}
