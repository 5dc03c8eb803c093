//! Metrics: what each item took, and who ran it.

use std::time::Duration;

use procpool::{Measured, Pool, TaskError, TaskErrorKind};
use rustix::time::{ClockId, clock_gettime};

use crate::backends::{Processes, Subject};
use crate::failure_modes::{Fate, strike};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::workers;
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        every_kind_of_call_gives_metrics,
        metrics_tell_the_truth,
        failures_have_metrics,
        what_is_never_run_has_metrics,
        options_may_come_before_and_after,
        a_measured_handle_says_whether_it_was_successful,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        metrics_name_the_worker,
        a_lost_item_has_metrics,
        an_item_out_of_time_has_run_as_long,
        each_attempt_is_counted,
        waiting_is_told_from_running,
        memory_is_told,
        bulk_values_have_metrics,
        what_is_reclaimed_keeps_its_metrics,
        a_cancelled_call_keeps_its_metrics,
        one_item_that_is_left_of_many_has_its_value,
    ]
}

/// Uses the processor for this many milliseconds of its time, and says what it was asked.
fn toil(milliseconds: u64) -> u64 {
    let limit = Duration::from_millis(milliseconds);
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let start = used();
    while used() - start < limit {}
    milliseconds
}

fn square(x: u64) -> u64 {
    x * x
}

fn values<R>(all: impl IntoIterator<Item = Measured<R>>) -> Vec<R> {
    let mut values = Vec::new();
    for one in all {
        assert_eq!(one.metrics.attempt, 1, "{:?}", one.metrics);
        assert!(one.metrics.run.is_some() && one.metrics.cpu.is_some());
        assert!(one.metrics.argument_bytes > 0 && one.metrics.result_bytes > 0);
        values.push(one.outcome.expect("nothing fails"));
    }
    values
}

/// The values are those that the call gives without metrics, in the same order.
fn every_kind_of_call_gives_metrics<S: Subject>() {
    let pool = S::pool(2);
    let call = || pool.call(square).measured();
    let squares: Vec<u64> = (0..100).map(square).collect();
    assert_eq!(values([call().apply(7)]), [49]);
    assert_eq!(values([call().apply_async(8).get()]), [64]);
    assert_eq!(values(call().map(0..100)), squares);
    assert_eq!(values(call().map_async(0..100).get()), squares);
    assert_eq!(values(call().imap(0..100)), squares);
    let mut unordered = values(call().imap_unordered(0..100));
    unordered.sort_unstable();
    assert_eq!(unordered, squares);
    let text = pool.call(|s: String| s + "!").chunksize(7).measured();
    let texts = values(text.map((0..50).map(|x| x.to_string())));
    assert_eq!(texts[49], "49!");
}

/// It makes no difference when a call learns that it is to be measured.
fn options_may_come_before_and_after<S: Subject>() {
    let pool = S::pool(1);
    let started = |chunks: Vec<Measured<u64>>| -> Vec<bool> {
        let all = chunks.into_iter();
        all.map(|it| it.metrics.run.is_some() && it.outcome.is_ok())
            .collect()
    };
    let before = pool.call(square).chunksize(3).retries(1).measured();
    let after = pool.call(square).measured().chunksize(3).retries(1);
    assert_eq!(started(before.map(0..5)), [true; 5]);
    assert_eq!(started(after.map(0..5)), [true; 5]);
    let refused = pool.call(square).measured().chunksize(0).apply(1);
    let error = refused.outcome.expect_err("there is no such chunk");
    assert_eq!(error.kind(), TaskErrorKind::Invalid);
}

/// As those do that give the values alone.
fn a_measured_handle_says_whether_it_was_successful<S: Subject>() {
    let pool = S::pool(1);
    let odd = |x: u64| assert!(x % 2 == 1, "{x} is even");
    for (items, is_good) in [([1, 3], true), ([1, 2], false)] {
        let all = pool.call(odd).measured().map_async(items);
        let last = pool.call(odd).measured().apply_async(items[1]);
        assert!(all.wait_timeout(Duration::MAX) && last.wait_timeout(Duration::MAX));
        assert_eq!(all.is_successful(), Some(is_good));
        assert_eq!(last.is_successful(), Some(is_good));
    }
}

/// Times are as long as what was done, and bytes as many.
fn metrics_tell_the_truth<S: Subject>() {
    let pool = S::pool(1);
    let done = pool.call(toil).measured().apply(30);
    let metrics = &done.metrics;
    assert_eq!(done.outcome.unwrap(), 30);
    assert!(metrics.run >= Some(Duration::from_millis(30)), "{metrics}");
    assert!(metrics.cpu >= Some(Duration::from_millis(30)), "{metrics}");
    assert_eq!((metrics.argument_bytes, metrics.result_bytes), (8, 8));
    assert!(metrics.queued.is_some(), "{metrics}");
    assert!(metrics.peak_rss > Some(100_000), "{metrics}");
    let asleep = |(): ()| std::thread::sleep(Duration::from_millis(30));
    let done = pool.call(asleep).measured().apply(());
    let metrics = &done.metrics;
    assert!(metrics.run >= Some(Duration::from_millis(30)), "{metrics}");
    assert!(metrics.cpu < metrics.run, "{metrics}");
    // Strings have their length before them.
    let done = pool.call(|s: String| s.len()).measured();
    let all = done.map(["", "a", "four"].map(str::to_owned));
    let bytes: Vec<u64> = all.iter().map(|it| it.metrics.argument_bytes).collect();
    assert_eq!(bytes[1] - bytes[0], 1);
    assert_eq!(bytes[2] - bytes[0], 4);
}

/// Also those of items that panic, which are in the middle of others.
fn failures_have_metrics<S: Subject>() {
    let pool = S::pool(1);
    let task = |x: u64| {
        toil(1);
        assert_ne!(x % 3, 1, "one too many");
        x
    };
    for chunksize in [1, 4, 20] {
        let all = pool.call(task).chunksize(chunksize).measured().map(0..10);
        for (index, one) in all.iter().enumerate() {
            match &one.outcome {
                Ok(value) => assert_eq!(*value, index as u64),
                Err(error) => {
                    assert_eq!(error.kind(), TaskErrorKind::Panicked);
                    assert_eq!(error.index(), Some(index));
                }
            }
            assert_eq!(one.outcome.is_err(), index % 3 == 1);
            assert_eq!(one.metrics.result_bytes > 0, one.outcome.is_ok());
            assert!(one.metrics.run >= Some(Duration::from_millis(1)));
        }
    }
    let one = pool.call(task).measured().apply(1);
    assert_eq!(one.outcome.unwrap_err().index(), None);
    assert_eq!(one.metrics.attempt, 1);
}

/// A metrics of nothing, but no missing one.
fn what_is_never_run_has_metrics<S: Subject>() {
    let pool = S::pool(1);
    pool.close();
    let one = pool.call(square).measured().apply(1);
    assert!(one.outcome.unwrap_err().is_closed());
    assert_eq!((one.metrics.attempt, one.metrics.run), (0, None));
    let refused = pool.call(square).chunksize(0).measured().map(0..3);
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|one| one.metrics.attempt == 0));
    let refused = pool.call(square).chunksize(0).measured();
    assert_eq!(refused.map_async(0..3).get().len(), 1);
}

/// It is the worker that ran the item.
fn metrics_name_the_worker<S: Processes>() {
    let pool = S::pool(2);
    let all = pool.call(|_: u64| std::process::id()).measured().map(0..50);
    for one in all {
        let worker = one.metrics.worker.as_ref().map(|worker| worker.pid());
        assert_eq!(worker, Some(one.outcome.unwrap()));
    }
}

/// It says which worker it was, and how long the item ran before.
fn a_lost_item_has_metrics<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let task = |fate: Option<Fate>| {
        if let Some(fate) = fate {
            toil(10);
            let _ = strike(fate);
        }
    };
    let all =
        pool.call(task)
            .chunksize(5)
            .measured()
            .map([None, None, Some(Fate::Segv), None, None]);
    let lost = &all[2];
    assert!(lost.outcome.as_ref().unwrap_err().is_worker_lost());
    let metrics = &lost.metrics;
    assert_eq!(metrics.worker.as_ref().map(|it| it.pid()), Some(pids[0]));
    assert!(metrics.run >= Some(Duration::from_millis(10)), "{metrics}");
    assert_eq!((metrics.attempt, metrics.cpu), (1, None));
    assert!(metrics.argument_bytes > 0);
    for (index, one) in all.iter().enumerate() {
        assert_eq!(one.outcome.is_ok(), index != 2);
        let pid = one.metrics.worker.as_ref().map(|it| it.pid());
        assert_eq!(pid == Some(pids[0]), index <= 2, "{}", one.metrics);
    }
}

fn an_item_out_of_time_has_run_as_long<S: Processes>() {
    let pool = S::pool(1);
    let limit = Duration::from_millis(50);
    let task = |ticket: String| file_barrier::pass(&ticket);
    let gate = Gate::new();
    let one = pool.call(task).timeout(limit).measured();
    let one = one.apply(gate.ticket());
    assert!(one.outcome.unwrap_err().is_timeout());
    assert!(one.metrics.run >= Some(limit), "{}", one.metrics);
}

/// The metrics is of the last attempt: its worker, its waiting.
fn each_attempt_is_counted<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let task = |ticket: String| {
        file_barrier::add(&ticket, "here");
        if std::fs::read_to_string(&ticket).map_or(0, |text| text.lines().count()) < 3 {
            let _ = strike(Fate::Kill);
        }
        std::process::id()
    };
    let one = pool.call(task).retries(5).measured().apply(tally.ticket());
    assert_eq!(one.metrics.attempt, 3);
    let worker = one.metrics.worker.as_ref().map(|worker| worker.pid());
    assert_eq!(worker, Some(one.outcome.unwrap()));
    let never = pool.call(|(): ()| strike(Fate::Kill).is_ok());
    let one = never.retries(2).measured().apply(());
    assert!(one.outcome.unwrap_err().is_worker_lost());
    assert_eq!(one.metrics.attempt, 3);
}

/// An item that waits for another one has waited at least as long as that ran.
fn waiting_is_told_from_running<S: Processes>() {
    let pool = S::pool(1);
    let first = pool.call(toil).measured().apply_async(40);
    let second = pool.call(toil).measured().apply_async(1);
    let (first, second) = (first.get().metrics, second.get().metrics);
    assert!(second.run < first.run, "{first}, and then {second}");
    assert!(second.queued > Some(Duration::ZERO));
    // The worker has something to do until all of them wait: else it may begin one of them while
    // the next one is still encoded.
    let gate = Gate::new();
    let busy = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let batch = pool.call(toil).chunksize(4).measured().map_async([10; 4]);
    gate.open();
    busy.get().expect("it only waits");
    for pair in batch.get().windows(2) {
        assert!(pair[1].metrics.queued >= pair[0].metrics.run, "{:?}", pair);
    }
}

/// What the parent has is not the worker's.
fn memory_is_told<S: Processes>() {
    const LARGE: usize = 96 << 20;
    let own = vec![1_u8; LARGE];
    let pool = S::pool(1);
    let touch = |bytes: usize| vec![1_u8; bytes].iter().map(|x| u64::from(*x)).sum::<u64>();
    let before = pool.call(touch).measured().apply(10);
    let after = pool.call(touch).measured().apply(LARGE);
    assert_eq!(after.outcome.clone().unwrap(), LARGE as u64);
    let [before, after] = [before, after].map(|one| one.metrics.peak_rss.unwrap());
    assert!(before < LARGE as u64, "{before}");
    assert!(after > LARGE as u64, "{after}");
    drop(own);
}

fn bulk_values_have_metrics<S: Processes>() {
    let pool = S::pool(1);
    let bytes = vec![7_u8; 3 << 20];
    let twice = |bytes: Vec<u8>| [bytes.clone(), bytes].concat();
    let all = pool
        .call(twice)
        .measured()
        .map([bytes.clone(), bytes.clone()]);
    let one = pool.call(twice).measured().apply(bytes);
    for one in all.into_iter().chain([one]) {
        assert_eq!(one.metrics.argument_bytes, (3 << 20) + 8);
        assert_eq!(one.metrics.result_bytes, (6 << 20) + 8);
        assert_eq!(one.outcome.unwrap().len(), 6 << 20);
    }
}

/// What another worker takes over has the metrics of where it ran.
fn what_is_reclaimed_keeps_its_metrics<S: Processes>() {
    let pool = S::pool(2);
    let gate = Gate::new();
    let task = |(ticket, x): (Option<String>, u64)| {
        if let Some(ticket) = ticket {
            file_barrier::pass(&ticket);
        }
        (std::process::id(), x)
    };
    let items = (0..40).map(|x| ((x == 2).then(|| gate.ticket()), x));
    let handle = pool.call(task).chunksize(20).measured().map_async(items);
    gate.wait_for(1);
    gate.open();
    for (index, one) in handle.get().into_iter().enumerate() {
        let (pid, x) = one.outcome.unwrap();
        assert_eq!(x, index as u64);
        assert_eq!(one.metrics.worker.map(|worker| worker.pid()), Some(pid));
        assert!(one.metrics.argument_bytes > 0);
    }
}

fn a_cancelled_call_keeps_its_metrics<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let task = |ticket: String| file_barrier::pass(&ticket);
    let handle = pool.call(task).chunksize(1).measured();
    let handle = handle.map_async([gate.ticket(), gate.ticket()]);
    gate.wait_for(1);
    handle.kill();
    let all = handle.get();
    assert!(
        all.iter()
            .all(|one| one.outcome.as_ref().unwrap_err().is_cancelled())
    );
    assert_eq!(all[0].metrics.attempt, 1, "{}", all[0].metrics);
    assert_eq!(all[1].metrics.attempt, 0, "{}", all[1].metrics);
}

/// What is left of a chunk when its worker dies may be one item.
fn one_item_that_is_left_of_many_has_its_value<S: Processes>() {
    let pool = S::pool(1);
    let die = |x: u64| if x == 1 { std::process::abort() } else { x };
    let call = || pool.call(die).chunksize(3).measured();
    for all in [
        call().map(0..3),
        call().imap(0..3).collect(),
        call().map_async(0..3).get(),
    ] {
        let [before, lost, after] = &all[..] else {
            panic!("{} results", all.len());
        };
        assert_eq!(before.outcome.as_ref().ok(), Some(&0));
        assert!(lost.outcome.as_ref().is_err_and(TaskError::is_worker_lost));
        assert_eq!(after.outcome.as_ref().ok(), Some(&2));
    }
}
