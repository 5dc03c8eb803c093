//! shuttle: whole pools whose workers do not die when they are killed. What they had gets its
//! outcomes all the same, once, and nobody sleeps until a death.
//!
//! Caught when broken on purpose: an outcome that waits for the death.

use std::time::Duration;

use super::explore;
use super::launcher::{Lingers, Processes, config, pool};
use super::pool::{check_fates, counted, join, runs, spawn};
use crate::api::pool::Pool;
use crate::error::task_error::TaskErrorKind;
use crate::sync::Life;
use crate::sync::thread;
use crate::sys::Clock;

/// Workers that were killed are not gone for a while, in one way or the other.
fn with_lingering(model: fn(&Processes)) {
    let coin = shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 0..2);
    let lingers = [Lingers::Alive, Lingers::Unreaped][coin];
    model(&Processes::that_linger(lingers));
}

/// Nobody has slept until a death.
fn waited_for_no_death() {
    assert!(
        Clock::longest_wait() <= 110_000_000,
        "a death was waited for"
    );
}

#[test]
fn deadlines_do_not_wait_for_deaths() {
    fn slow(item: u32) -> u32 {
        if item == 1 {
            Life::sleep_away();
        }
        counted(item)
    }
    explore(|| {
        with_lingering(|processes| {
            let (_engine, pool) = pool(config(2), processes);
            let waiting = spawn(&pool, |pool| {
                assert_eq!(pool.apply(counted, 10).expect("a value"), 1010);
            });
            let call = pool.call(slow).timeout(Duration::from_millis(1));
            let outcomes = call.chunksize(3).try_map(0..4);
            for (item, outcome) in (0..).zip(outcomes) {
                let outcome = outcome.map_err(|error| error.kind());
                let expected = match item {
                    1 => Err(TaskErrorKind::TimedOut),
                    _ => Ok(item + 1000),
                };
                assert_eq!(outcome, expected);
                assert_eq!(runs(item), u32::from(item != 1), "item {item}");
            }
            join([waiting]);
            assert_eq!(pool.apply(counted, 11).expect("a value"), 1011);
            waited_for_no_death();
        });
    });
}

#[test]
fn kills_and_cancels_do_not_wait_for_deaths() {
    fn slow(item: u32) -> u32 {
        if item == 0 {
            Life::sleep_away();
        }
        counted(item)
    }
    explore(|| {
        with_lingering(|processes| {
            let (_engine, pool) = pool(config(1), processes);
            let killed = pool.apply_async(slow, 0);
            let behind = pool.call(slow).chunksize(2).map_async(1..4);
            let killer = thread::Builder::new().spawn(move || {
                killed.kill();
                let error = killed.get().expect_err("killed");
                assert_eq!(error.kind(), TaskErrorKind::Cancelled);
            });
            assert_eq!(behind.get().expect("values"), [1001, 1002, 1003]);
            join([killer.expect("a thread")]);
            for item in 1..4 {
                assert_eq!(runs(item), 1, "item {item}");
            }
            waited_for_no_death();
        });
    });
}

/// What somebody else has killed is lost, or had been done, or is run elsewhere.
#[test]
fn losses_do_not_wait_for_deaths() {
    explore(|| {
        with_lingering(|processes| {
            let (_engine, pool) = pool(config(2), processes);
            let processes = processes.clone();
            let killer = thread::Builder::new().spawn(move || processes.kill_one());
            check_fates(&pool, 0);
            join([killer.expect("a thread")]);
        });
    });
}

#[test]
fn the_end_does_not_wait_for_deaths() {
    fn slow(_: u32) {
        Life::sleep_away()
    }
    explore(|| {
        with_lingering(|processes| {
            let (engine, pool) = pool(config(1), processes);
            let running = pool.apply_async(slow, 1);
            pool.terminate();
            let error = running.get().expect_err("terminated");
            assert_eq!(error.kind(), TaskErrorKind::Cancelled);
            waited_for_no_death();
            drop(engine);
        });
    });
}
