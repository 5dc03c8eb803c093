//! shuttle: items that are tried again since their call says so, and a pool whose end is awaited.
//! An item of which nobody decides, and a future that nobody wakes, sleep for good.
//!
//! Caught when broken on purpose: a delayed chunk has no timer, or does not keep a closed pool; who
//! awaits the end is not woken by the supervisor, the last delivery or the last callback, or is
//! added after the question.

use std::time::Duration;

use super::explore;
use super::launcher::{Processes, config, pool};
use super::pool::{awake, block_on, counted, join, runs, spawn};
use crate::api::pool::Pool;
use crate::error::task_error::TaskErrorKind;
use crate::sync::thread;

/// Fails for the first two times.
fn third_time(item: u32) -> Result<u32, u32> {
    let value = counted(item);
    if runs(item) < 3 { Err(item) } else { Ok(value) }
}

fn never(item: u32) -> Result<u32, u32> {
    counted(item);
    Err(item)
}

#[test]
fn attempts_are_decided() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 9).expect("a value"), 1009);
        });
        let call = pool.call(third_time).retries(2).chunksize(2);
        let values = call.retry_errors(|_| true).map(1..4).expect("values");
        assert_eq!(values, [Ok(1001), Ok(1002), Ok(1003)]);
        assert!((1..4).all(|item| runs(item) == 3));
        join([waiting]);
        awake();
    });
}

/// No thread waits for the outcomes, so the supervisor alone sees to them.
#[test]
fn attempts_are_decided_without_a_driver() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let call = || pool.call(third_time).retries(2).retry_errors(|_| true);
        let first = call().apply_async(1);
        let others = call().chunksize(1).map_async(2..4);
        assert_eq!(block_on(first).expect("a value"), Ok(1001));
        assert_eq!(block_on(others).expect("values"), [Ok(1002), Ok(1003)]);
        awake();
    });
}

/// The workers stay for an item of which its call is asked, and for one that waits.
#[test]
fn a_closed_pool_makes_its_attempts() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let call = || pool.call(third_time).retries(2).retry_errors(|_| true);
        let first = call().apply_async(1);
        let waits = call().backoff(Duration::from_millis(1)).apply_async(2);
        let ending = spawn(&pool, |pool| pool.close());
        // (The end is awaited and waited for.)
        while block_on(pool.join_async()).is_err() {
            thread::spin_loop();
        }
        pool.join().expect("it is closed");
        assert_eq!(first.get().expect("a value"), Ok(1001));
        assert_eq!(waits.get().expect("a value"), Ok(1002));
        join([ending]);
    });
}

/// What is tried again is urgent: what waits in the worker behind others is taken back for it, and
/// has ended meanwhile.
#[test]
fn urgent_attempts_are_decided() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let call = || pool.call(third_time).retries(2).retry_errors(|_| true);
        let others = call().chunksize(1).map_async(2..5);
        let urgent = call().priority(1).apply_async(1);
        assert_eq!(block_on(urgent).expect("a value"), Ok(1001));
        assert_eq!(
            block_on(others).expect("values"),
            [Ok(1002), Ok(1003), Ok(1004)]
        );
        assert!((1..5).all(|item| runs(item) == 3));
        awake();
    });
}

#[test]
fn attempts_are_cancelled() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let call = || pool.call(never).retries(2).retry_errors(|_| true);
        let one = call().apply_async(1);
        let waits = call().backoff(Duration::from_millis(1)).map_async(2..4);
        let cancelling = thread::Builder::new().spawn(move || {
            waits.cancel();
            match waits.get() {
                Ok(values) => assert_eq!(values, [Err(2), Err(3)]),
                Err(error) => assert_eq!(error.kind(), TaskErrorKind::Cancelled),
            }
        });
        assert_eq!(one.get().expect("a value"), Err(1));
        assert_eq!(runs(1), 3);
        join([cancelling.expect("a thread")]);
        pool.close();
        pool.join().expect("it is closed");
        assert!((2..4).all(|item| runs(item) <= 3));
    });
}

/// Whatever is the last that happens, a worker's end, a delivery or a callback: who awaits the end
/// is woken, and not by an alarm that happens to come.
#[test]
fn the_end_is_awaited() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let task = pool.apply_async(counted, 1);
        task.on_complete(|outcome| {
            counted(outcome.clone().expect("a value"));
        });
        let reading = thread::Builder::new().spawn(move || {
            assert_eq!(task.get().expect("a value"), 1001);
        });
        pool.close();
        let awaiting = spawn(&pool, |pool| {
            block_on(pool.join_async()).expect("it is closed");
        });
        block_on(pool.join_async()).expect("it is closed");
        assert_eq!(runs(1001), 1);
        join([reading.expect("a thread"), awaiting]);
        awake();
    });
}
