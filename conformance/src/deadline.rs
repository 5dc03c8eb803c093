//! Tasks that take too long, and tasks that are run again.

use std::time::{Duration, Instant};

use procpool::{ExitReason, Pool, TaskErrorKind};
use rustix::process::Signal;

use crate::backends::Processes;
use crate::failure_modes::{Fate, run_a_program, strike};
use crate::file_barrier::{self, Gate, Tally};
use crate::procfs::{self, wait_for_death, workers};
use crate::program::{Program, again, programs};
use crate::trial::Test;

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_task_that_takes_too_long_is_killed,
        a_task_that_ends_in_time_is_left_alone,
        one_slow_item_costs_no_other,
        a_deadline_counts_from_the_start_of_the_run,
        every_item_has_its_own_deadline,
        a_long_deadline_hides_no_short_one,
        a_deadline_needs_nobody_who_waits,
        a_closed_pool_ends_though_its_last_deadline_comes_just_then,
        what_a_task_has_started_is_killed_with_it,
        what_a_child_of_a_task_has_started_is_killed_as_well,
        a_deadline_is_never_early,
        a_worker_that_is_stopped_costs_no_task,
        time_in_which_nobody_runs_is_nobodys,
        a_timeout_of_zero_is_refused,
        a_lost_task_is_run_again,
        a_task_is_run_again_as_often_as_allowed,
        a_task_that_ran_out_of_time_is_run_again,
        a_task_that_panicked_is_not_run_again,
        only_the_lost_item_is_run_again,
        a_caught_panic_moves_no_deadline,
        a_panic_that_hangs_meets_its_deadline,
    ]
}

pub(crate) fn programs<S: Processes>() -> Vec<Program> {
    programs![S: is_frozen]
}

/// Long enough for a quick task on the slowest machine, and for nobody to wait for it.
const LIMIT: Duration = Duration::from_millis(300);

fn never(_: u64) -> u64 {
    loop {
        std::thread::park();
    }
}

/// It is killed with its worker, its error says so, and the next task has another worker.
fn a_task_that_takes_too_long_is_killed<S: Processes>() {
    let pool = S::pool(1);
    let pids = workers(&pool);
    let error = pool.call(never).timeout(LIMIT).apply(1).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::TimedOut);
    assert!(error.is_timeout() && !error.is_worker_lost());
    assert_eq!(error.worker().map(|worker| worker.pid()), Some(pids[0]));
    assert!(error.to_string().contains("300ms"), "{error}");
    wait_for_death(&pids);
    assert_eq!(pool.apply(|x: u64| x, 1).unwrap(), 1);
}

/// A deadline that is not reached changes nothing, also for the tasks after it.
fn a_task_that_ends_in_time_is_left_alone<S: Processes>() {
    let pool = S::pool(2);
    let before = workers(&pool);
    let long = Duration::from_secs(3600);
    for _ in 0..50 {
        let call = || pool.call(|x: u64| x + 1).timeout(long);
        assert_eq!(call().apply(1).unwrap(), 2);
        assert_eq!(call().map(0..20).unwrap(), Vec::from_iter(1..21));
    }
    assert_eq!(
        pool.call(|x: u64| x)
            .timeout(Duration::MAX)
            .apply(1)
            .unwrap(),
        1
    );
    assert_eq!(workers(&pool), before);
}

/// In a chunk, the items before and after the slow one have their values.
fn one_slow_item_costs_no_other<S: Processes>() {
    let pool = S::pool(2);
    let task = |x: u64| if x == 5 { never(x) } else { x };
    for chunk in [1, 4, 100] {
        let call = pool.call(task).timeout(LIMIT).chunksize(chunk);
        for (x, result) in (0..).zip(call.try_map(0..10)) {
            match result {
                Ok(y) => assert!(x == y && x != 5),
                Err(error) => {
                    assert!(error.is_timeout(), "{error}");
                    assert_eq!((error.index(), x), (Some(5), 5));
                }
            }
        }
    }
}

/// Time in the queue does not count.
fn a_deadline_counts_from_the_start_of_the_run<S: Processes>() {
    let pool = S::pool(1);
    let gate = Gate::new();
    let first = pool.apply_async(|ticket: String| file_barrier::pass(&ticket), gate.ticket());
    gate.wait_for(1);
    let limit = Duration::from_secs(1);
    let queued = [1, 2, 3].map(|x| pool.call(|x: u64| x).timeout(limit).apply_async(x));
    // Not to wait for something, but because time is what this is about.
    std::thread::sleep(limit + Duration::from_millis(200));
    gate.open();
    first.get().unwrap();
    for (x, handle) in (1..).zip(queued) {
        assert_eq!(handle.get().unwrap(), x);
    }
}

/// A chunk may take longer than each of its items may.
fn every_item_has_its_own_deadline<S: Processes>() {
    let pool = S::pool(1);
    let task = |x: u64| {
        std::thread::sleep(Duration::from_millis(150));
        x
    };
    // Twelve items take 1.8 s, more than twice the time of one.
    let timeout = Duration::from_millis(700);
    let call = pool.call(task).timeout(timeout).chunksize(12);
    assert_eq!(call.map(0..12).unwrap(), Vec::from_iter(0..12));
}

/// A task that may take an hour does not make the next one's deadline wait for that hour.
fn a_long_deadline_hides_no_short_one<S: Processes>() {
    let pool = S::pool(1);
    let hour = Duration::from_secs(3600);
    assert_eq!(pool.call(|x: u64| x).timeout(hour).apply(1).unwrap(), 1);
    let error = pool.call(never).timeout(LIMIT).apply(2).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

/// It is kept while every thread of the program is busy with something else.
fn a_deadline_needs_nobody_who_waits<S: Processes>() {
    let pool = S::pool(2);
    let pids = workers(&pool);
    let handles = [1, 2].map(|x| pool.call(never).timeout(LIMIT).apply_async(x));
    wait_for_death(&pids);
    for handle in handles {
        assert!(handle.get().unwrap_err().is_timeout());
    }
}

/// Whoever looks at the deadline finds the last outcome, and lets the worker go.
fn a_closed_pool_ends_though_its_last_deadline_comes_just_then<S: Processes>() {
    const TIMEOUT: u64 = 2_000;
    fn nearly_late(micros: u64) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(micros) {
            std::hint::spin_loop();
        }
    }
    for round in 0..60 {
        let pool = S::pool(1);
        let call = pool
            .call(nearly_late)
            .timeout(Duration::from_micros(TIMEOUT));
        let handle = call.apply_async(TIMEOUT - 60 + round);
        pool.close();
        pool.join().unwrap();
        assert!(handle.is_ready());
    }
}

/// A child process that the task has started goes when the task is killed at its deadline.
fn what_a_task_has_started_is_killed_with_it<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let error = pool
        .call(run_a_program)
        .timeout(LIMIT)
        .apply(tally.ticket());
    assert!(error.unwrap_err().is_timeout());
    let children = tally.numbers();
    assert_eq!(children.len(), 1);
    wait_for_death(&children);
}

/// So does a grandchild, also when the child is gone already.
fn what_a_child_of_a_task_has_started_is_killed_as_well<S: Processes>() {
    fn start(tally: String) {
        let script = "sleep 1000 & echo $! >> $0; echo $$ >> $0";
        let child = std::process::Command::new("sh")
            .args(["-c", script, &tally])
            .status();
        assert!(child.expect("there is a shell").success());
        never(0);
    }
    let pool = S::pool(1);
    let tally = Tally::new();
    let error = pool.call(start).timeout(LIMIT).apply(tally.ticket());
    assert!(error.unwrap_err().is_timeout());
    let pids = tally.numbers();
    assert_eq!(pids.len(), 2);
    wait_for_death(&pids);
}

/// From the moment at which a task was begun, it has all of its time. How much more it got is
/// printed (`-- --nocapture`), and asserted nowhere: on a busy machine, any time may pass.
fn a_deadline_is_never_early<S: Processes>() {
    let pool = S::pool(1);
    let mut late: Vec<Duration> = Vec::new();
    for round in 0..40 {
        let limit = Duration::from_millis(5 + round % 7);
        let begun = Instant::now();
        let error = pool.call(never).timeout(limit).apply(1).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.kind(), TaskErrorKind::TimedOut, "{error}");
        assert!(took >= limit, "{took:?} of {limit:?}");
        late.push(took - limit);
        // The next one is not to wait for its worker.
        pool.apply(|x: u64| x, 1).unwrap();
    }
    late.sort_unstable();
    println!(
        "{}: late by {:?} (median), {:?} (9 of 10), {:?} (all)",
        S::NAME,
        late[20],
        late[36],
        late[39]
    );
}

/// No task ends in no time.
fn a_timeout_of_zero_is_refused<S: Processes>() {
    let pool = S::pool(1);
    let error = pool
        .call(never)
        .timeout(Duration::ZERO)
        .apply(1)
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Invalid);
    assert!(error.to_string().contains("timeout is 0"), "{error}");
}

/// Counts its runs, and survives only the one with this number.
fn survive_once((tally, run, fate): (String, usize, Fate)) -> usize {
    file_barrier::add(&tally, std::process::id());
    let runs = std::fs::read_to_string(&tally).unwrap().lines().count();
    if runs != run {
        strike(fate).expect("it has died");
    }
    runs
}

/// With a retry, a task whose worker died gets its value from another; without one it does not.
fn a_lost_task_is_run_again<S: Processes>() {
    let pool = S::pool(2);
    for fate in Fate::DEADLY {
        let tally = Tally::new();
        let call = pool.call(survive_once).retries(1);
        assert_eq!(call.apply((tally.ticket(), 2, fate)).unwrap(), 2);
        let pids = tally.lines();
        assert_ne!(pids[0], pids[1]);

        let tally = Tally::new();
        let error = pool.apply(survive_once, (tally.ticket(), 2, fate));
        fate.assert_told(&error.unwrap_err());
        assert_eq!(tally.count(), 1);
    }
}

/// Three retries are four runs, and then it is lost.
fn a_task_is_run_again_as_often_as_allowed<S: Processes>() {
    let pool = S::pool(2);
    let tally = Tally::new();
    let call = pool.call(survive_once).retries(3);
    let error = call.apply((tally.ticket(), 9, Fate::Kill)).unwrap_err();
    assert_eq!(error.signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(tally.count(), 4);
}

/// Retries are for deadlines too.
fn a_task_that_ran_out_of_time_is_run_again<S: Processes>() {
    fn slow_once(tally: String) -> usize {
        file_barrier::add(&tally, "run");
        let runs = std::fs::read_to_string(&tally).unwrap().lines().count();
        if runs == 1 {
            never(0);
        }
        runs
    }
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool
        .call(slow_once)
        .timeout(Duration::from_secs(1))
        .retries(1);
    assert_eq!(call.apply(tally.ticket()).unwrap(), 2);
}

/// A panic is an answer, and the same one would come again.
fn a_task_that_panicked_is_not_run_again<S: Processes>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool.call(survive_once).retries(5);
    let error = call.apply((tally.ticket(), 9, Fate::Panic)).unwrap_err();
    assert!(error.is_panic());
    assert_eq!(tally.count(), 1);
}

/// One that was handed over and could not begin is run by another worker: its time has not begun.
fn a_worker_that_is_stopped_costs_no_task<S: Processes>() {
    let pool = S::pool(1);
    let stopped = workers(&pool);
    procfs::signal(stopped[0], Signal::STOP);
    assert_eq!(
        pool.call(|x: u64| x + 1).timeout(LIMIT).apply(1).unwrap(),
        2
    );
    wait_for_death(&stopped);
}

/// Items that had ended before their worker died, and those that had not begun, run once.
fn only_the_lost_item_is_run_again<S: Processes>() {
    fn task((tally, x): (String, u32)) -> u32 {
        file_barrier::add(&tally, x);
        let runs = std::fs::read_to_string(&tally).unwrap();
        if x == 7 && runs.lines().filter(|line| *line == "7").count() == 1 {
            std::process::abort();
        }
        x
    }
    let pool = S::pool(1);
    let tally = Tally::new();
    let items = (0..20).map(|x| (tally.ticket(), x));
    let results = pool.call(task).retries(1).chunksize(20).map(items);
    assert_eq!(results.unwrap(), Vec::from_iter(0..20));
    let mut runs = tally.numbers();
    runs.sort_unstable();
    let mut expected = Vec::from_iter(0..20);
    expected.insert(7, 7);
    assert_eq!(runs, expected);
}

/// The deadline itself comes, and not what ends workers that lie about their items.
fn assert_deadline<S: Processes>(task: impl Fn(u64) -> u64 + Copy + Send + Sync + 'static) {
    let pool = S::pool(1);
    let call = pool.call(task).timeout(LIMIT).chunksize(10);
    for (x, result) in (0..).zip(call.try_map(0..10)) {
        match result {
            Ok(y) => assert!(x == y && x != 5),
            Err(error) => assert!(error.is_timeout() && x == 5, "{error}"),
        }
    }
    // The outcome may come before the death.
    procfs::wait_until(|| pool.stats().ended_for(ExitReason::Deadline) == 1);
    assert_eq!(pool.stats().ended_for(ExitReason::Unresponsive), 0);
}

/// A task that catches a panic goes on, and so does its time.
fn a_caught_panic_moves_no_deadline<S: Processes>() {
    assert_deadline::<S>(|x| {
        let caught = std::panic::catch_unwind(|| panic!("caught"));
        assert!(caught.is_err());
        if x == 5 { never(x) } else { x }
    });
}

/// A task has not ended as long as its values are being dropped.
fn a_panic_that_hangs_meets_its_deadline<S: Processes>() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            never(0);
        }
    }
    assert_deadline::<S>(|x| {
        if x == 5 {
            let _slow = Slow;
            panic!("and then hang");
        }
        x
    });
}

/// The time of an item that runs while everything is stopped.
const FROZEN_LIMIT: Duration = Duration::from_secs(2);
/// Where its gate is.
const GATE: &str = "CONFORMANCE_GATE";

/// The program and its worker are stopped for longer than an item has, as by a container that is
/// frozen. Then the item needs a moment more, and gets it.
fn time_in_which_nobody_runs_is_nobodys<S: Processes>() {
    let gate = Gate::new();
    let mut program = again::<S>("is_frozen").env(GATE, gate.ticket()).start();
    let worker = gate.wait_for(1)[0];
    let stopped = Instant::now();
    for pid in [program.id(), worker] {
        procfs::signal(pid, Signal::STOP);
    }
    procfs::wait_until(|| stopped.elapsed() > FROZEN_LIMIT + Duration::from_secs(1));
    gate.open();
    // The thread that keeps the time comes first.
    for pid in [program.id(), worker] {
        procfs::signal(pid, Signal::CONT);
    }
    assert_eq!(program.line(), "a value");
}

fn is_frozen<S: Processes>() {
    let pool = S::pool(1);
    let ticket = std::env::var(GATE).unwrap();
    let call = pool.call(|ticket: String| file_barrier::pass(&ticket));
    match call.timeout(FROZEN_LIMIT).apply(ticket) {
        Ok(()) => println!("a value"),
        Err(error) => println!("{error}"),
    }
}
