//! Calls that have a deadline as a whole, and tasks that are asked before they are killed.

use std::time::{Duration, Instant};

use procpool::{Deadline, Pool, TaskError, TaskErrorKind, worker};

use crate::backends::{Processes, Subject};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{wait_for_death, wait_until, workers};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    tests![S:
        a_call_that_ends_before_its_deadline_is_left_alone,
        what_is_called_after_its_deadline_is_not_run,
    ]
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        what_waits_fails_at_the_deadline,
        what_runs_is_killed_at_the_deadline,
        a_deadline_holds_for_the_whole_map,
        a_deadline_of_one_call_harms_no_other,
        each_call_has_its_own_deadline,
        nothing_is_tried_again_after_the_deadline,
        what_a_task_returns_in_its_grace_is_its_result,
        a_task_is_killed_after_its_grace,
        a_cancelled_task_is_killed_after_its_grace,
        a_cancelled_task_that_stops_in_its_grace_keeps_its_worker,
        a_kill_waits_for_no_grace,
        the_next_task_has_nothing_of_a_grace,
    ]
}

/// Long enough for a quick task on the slowest machine, and for nobody to wait for it.
const LIMIT: Duration = Duration::from_millis(500);
const HOUR: Duration = Duration::from_secs(3600);

fn never(_: u64) -> u64 {
    loop {
        std::thread::park();
    }
}

/// Ends when it is asked to.
fn until_asked(x: u64) -> u64 {
    wait_until(worker::is_cancelled);
    x
}

fn add((tally, x): (String, u64)) -> u64 {
    file_barrier::add(&tally, x);
    x
}

fn a_call_that_ends_before_its_deadline_is_left_alone<S: Subject>() {
    let pool = S::pool(2);
    let at = Instant::now() + HOUR;
    for deadline in [HOUR.into(), at.into(), Duration::MAX.into()] {
        let deadline: Deadline = deadline;
        let call = || pool.call(|x: u64| x + 1).deadline(deadline).grace(HOUR);
        assert_eq!(call().apply(1).unwrap(), 2);
        assert_eq!(call().apply_async(2).get().unwrap(), 3);
        let all = Vec::from_iter(1..21);
        assert_eq!(call().map(0..20).unwrap(), all);
        assert_eq!(call().map_async(0..20).get().unwrap(), all);
        let lazy: Result<Vec<u64>, _> = call().imap(0..20).collect();
        assert_eq!(lazy.unwrap(), all);
    }
}

/// By whatever kind of call: it is an error, and no task runs.
fn what_is_called_after_its_deadline_is_not_run<S: Subject>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = || pool.call(add).deadline(Instant::now());
    let items = || (0..5).map(|x| (tally.ticket(), x)).collect::<Vec<_>>();
    let mut errors = vec![
        call().apply((tally.ticket(), 0)).unwrap_err(),
        call().apply_async((tally.ticket(), 0)).get().unwrap_err(),
        call().map(items()).unwrap_err(),
        call().map_async(items()).get().unwrap_err(),
        call()
            .measured()
            .apply((tally.ticket(), 0))
            .outcome
            .unwrap_err(),
    ];
    let all = call().chunksize(2).try_map(items());
    assert_eq!(all.len(), 5);
    errors.extend(all.into_iter().map(Result::unwrap_err));
    errors.extend(call().imap(items()).map(Result::unwrap_err));
    assert_eq!(errors.len(), 15);
    for error in errors {
        assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
        assert!(
            error.is_timeout() && error.to_string().contains("before"),
            "{error}"
        );
    }
    assert_eq!(tally.count(), 0);
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

/// Calls until the task has begun before its deadline, which it has not each time where a machine
/// has much else to do.
fn until_begun<T>(call: impl Fn() -> Result<T, TaskError>) -> Result<T, TaskError> {
    loop {
        match call() {
            Err(error) if error.to_string().contains("before the task had begun") => {
                assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
            }
            outcome => return outcome,
        }
    }
}

/// Wherever it waits: in the pool, or behind another task of the same worker.
fn what_waits_fails_at_the_deadline<S: Processes>() {
    let pool = S::pool(1);
    let (gate, tally) = (Gate::new(), Tally::new());
    let running = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let call = || pool.call(add).deadline(LIMIT);
    let one = call().apply_async((tally.ticket(), 1));
    let others: Vec<_> = (0..20)
        .map(|x| call().apply_async((tally.ticket(), x)))
        .collect();
    let map = call().map_async((0..20).map(|x| (tally.ticket(), x)));
    let mut errors = vec![one.get().unwrap_err(), map.get().unwrap_err()];
    errors.extend(others.into_iter().map(|it| it.get().unwrap_err()));
    for error in errors {
        assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
        assert!(error.to_string().contains("before"), "{error}");
    }
    assert!(!running.is_ready());
    gate.open();
    running.get().unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(tally.count(), 0);
    assert_eq!(pool.stats().workers_lost, 0);
}

/// Also while no thread of the program waits for it.
fn what_runs_is_killed_at_the_deadline<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let error = until_begun(|| {
        let start = Instant::now();
        let handle = pool.call(never).deadline(LIMIT).apply_async(1);
        wait_until(|| handle.is_ready());
        assert!(start.elapsed() >= LIMIT);
        handle.get()
    });
    let error = error.unwrap_err();
    wait_for_death(&pids);
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
    assert!(error.to_string().contains("killed"), "{error}");
    assert_eq!(error.worker().map(|worker| worker.pid()), Some(pids[0]));
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    assert!(pool.stats().failed_as(TaskErrorKind::DeadlineExceeded) > 0);
}

/// What has ended before has its result; then one is killed, and the others are not run.
fn a_deadline_holds_for_the_whole_map<S: Processes>() {
    let pool = S::pool(1);
    let task = |x: u64| if x == 3 { never(x) } else { x };
    let call = |chunk| pool.call(task).deadline(2 * LIMIT).chunksize(chunk);
    let check = |list: &[Result<u64, TaskError>]| {
        assert_eq!(list.len(), 10);
        for (x, outcome) in (0..).zip(list) {
            match outcome {
                Ok(y) => assert!(x == *y && x < 3),
                Err(error) => {
                    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
                    assert_eq!(error.index(), Some(x as usize));
                    assert!(x == 3 || !error.to_string().contains("killed"), "{error}");
                }
            }
        }
        // The deadline has found that item running.
        let error = list[3].as_ref().unwrap_err();
        error.to_string().contains("killed") && list[..3].iter().all(Result::is_ok)
    };
    for chunk in [1, 3, 10] {
        wait_until(|| check(&call(chunk).try_map(0..10)));
        wait_until(|| check(&Vec::from_iter(call(chunk).imap(0..10))));
    }
}

/// What another call has in the same worker, before and behind, has its result.
fn a_deadline_of_one_call_harms_no_other<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let (gate, tally) = (Gate::new(), Tally::new());
    let before = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let late = pool
        .call(add)
        .deadline(LIMIT)
        .map_async((0..5).map(|x| (tally.ticket(), x)));
    let behind = pool.map_async(|x: u64| x, 0..5);
    assert!(late.get().unwrap_err().is_timeout());
    gate.open();
    before.get().unwrap();
    assert_eq!(behind.get().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pids[0]);
    assert_eq!(tally.count(), 0);
}

/// A late one hides no early one, nor an early one a late one.
fn each_call_has_its_own_deadline<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let running = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let start = Instant::now();
    let call = |deadline| pool.call(|x: u64| x).deadline(deadline).apply_async(1);
    let last = call(HOUR);
    let second = call(2 * LIMIT);
    let first = call(LIMIT);
    assert!(first.get().unwrap_err().is_timeout());
    assert!(start.elapsed() >= LIMIT);
    assert!(second.get().unwrap_err().is_timeout());
    assert!(start.elapsed() >= 2 * LIMIT);
    gate.open();
    running.get().unwrap();
    assert_eq!(last.get().unwrap(), 1);
}

fn nothing_is_tried_again_after_the_deadline<S: Processes>() {
    let pool = S::pool(1);
    let task = |x: u64| {
        if x == 0 {
            never(x)
        } else {
            std::process::abort()
        }
    };
    let start = Instant::now();
    for x in [0, 1] {
        let call = pool.call(task).retries(u32::MAX).timeout(LIMIT / 2);
        let error = call.deadline(LIMIT).apply(x).unwrap_err();
        assert!(error.is_timeout() || error.is_worker_lost(), "{error}");
    }
    assert!(start.elapsed() >= 2 * LIMIT);
}

fn what_a_task_returns_in_its_grace_is_its_result<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let soon = Duration::from_millis(100);
    let late = pool.call(until_asked).timeout(soon).grace(HOUR);
    assert_eq!(late.apply(7).unwrap(), 7);
    let late = || pool.call(until_asked).deadline(soon).grace(HOUR);
    assert_eq!(until_begun(|| late().apply(8)).unwrap(), 8);
    // Those behind it have not begun.
    let first = until_begun(|| {
        let all = late().chunksize(3).try_map(0..3);
        for error in all[1..].iter().map(|it| it.as_ref().unwrap_err()) {
            assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
        }
        all.into_iter().next().expect("there are three")
    });
    assert_eq!(first.unwrap(), 0);
    // The timeout is each one's own.
    let call = pool
        .call(until_asked)
        .timeout(soon)
        .grace(HOUR)
        .chunksize(3);
    assert_eq!(call.map(0..3).unwrap(), [0, 1, 2]);
    assert_eq!(workers(&pool), pids);
}

fn a_task_is_killed_after_its_grace<S: Processes>() {
    let pool = S::pool(1);
    let soon = Duration::from_millis(100);
    let start = Instant::now();
    let call = pool.call(never).timeout(soon).grace(LIMIT);
    let error = call.apply(1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() >= soon + LIMIT);
    let killed = until_begun(|| {
        let start = Instant::now();
        let outcome = pool.call(never).deadline(soon).grace(LIMIT).apply(1);
        let was_killed = outcome.as_ref().unwrap_err().to_string().contains("killed");
        assert!(!was_killed || start.elapsed() >= soon + LIMIT);
        outcome
    });
    let error = killed.unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
    // The deadline comes while the grace of the timeout goes on, and asks for no more time.
    let call = pool.call(never).timeout(soon).deadline(2 * soon);
    assert!(call.grace(LIMIT).apply(1).unwrap_err().is_timeout());
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

/// Says that it runs, and never ends.
fn run_forever(gate: String) -> u64 {
    file_barrier::add(&gate, std::process::id());
    never(0)
}

fn a_cancelled_task_is_killed_after_its_grace<S: Processes>() {
    let pool = S::pool(1);
    for is_dropped in [false, true] {
        let pids = workers(&pool);
        let gate = Gate::new();
        let call = pool.call(run_forever).grace(LIMIT);
        let handle = call.apply_async(gate.ticket());
        gate.wait_for(1);
        let start = Instant::now();
        if is_dropped {
            drop(handle.cancel_on_drop());
        } else {
            handle.cancel();
            assert!(!handle.is_ready(), "it has its grace");
            let error = handle.get().unwrap_err();
            assert!(error.is_cancelled(), "{error}");
        }
        wait_for_death(&pids);
        assert!(start.elapsed() >= LIMIT);
        assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    }
}

fn a_cancelled_task_that_stops_in_its_grace_keeps_its_worker<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let gate = Gate::new();
    let task = |gate: String| {
        file_barrier::add(&gate, std::process::id());
        until_asked(1)
    };
    let handle = pool.call(task).grace(HOUR).apply_async(gate.ticket());
    gate.wait_for(1);
    handle.cancel();
    let error = handle.get().unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pids[0]);
}

fn a_kill_waits_for_no_grace<S: Processes>() {
    let pool = S::pool(1);
    for is_asked in [false, true] {
        let pids = workers(&pool);
        let gate = Gate::new();
        let handle = pool
            .call(run_forever)
            .grace(HOUR)
            .apply_async(gate.ticket());
        gate.wait_for(1);
        if is_asked {
            handle.cancel();
        }
        handle.kill();
        assert!(handle.get().unwrap_err().is_cancelled());
        wait_for_death(&pids);
        assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
    }
}

/// The one that was asked has ended in time; the one after it takes longer than that grace.
fn the_next_task_has_nothing_of_a_grace<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let soon = Duration::from_millis(50);
    let first = pool
        .call(until_asked)
        .timeout(soon)
        .grace(LIMIT)
        .apply_async(1);
    let slow = |x: u64| {
        std::thread::sleep(2 * LIMIT);
        assert!(!worker::is_cancelled());
        x
    };
    let second = pool.apply_async(slow, 2);
    assert_eq!(first.get().unwrap(), 1);
    assert_eq!(second.get().unwrap(), 2);
    assert_eq!(workers(&pool), pids);
}
