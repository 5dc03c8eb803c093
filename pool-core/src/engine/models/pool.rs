//! shuttle: whole pools, from `Engine::start` to the drop, with threads that submit and wait, the
//! supervisor, and workers that serve. A lost wake-up is a deadlock, which shuttle reports;
//! where it is saved by an alarm that happens to come, [`awake`] notices.
//!
//! Found: a supervisor that runs in circles because a ring is meant for a leader that is awake; a
//! leader that runs in circles because a launch is due.
//!
//! Caught when broken on purpose:
//! - leading: bells are silenced though a thread has just begun to lead (which was a defect
//!   once); it is left, or an offer of it declined, without a word to the next; it is offered
//!   without waking the waiting threads; the leader sleeps without having asked for a ring, or
//!   without another look, or though it was notified; a notification does not reach who sleeps on
//!   the bells; who finds a leader sleeps without having asked to be woken;
//! - the supervisor: it does not hear the bells when it should; it does not look once more when
//!   it begins to; it is not notified of an earlier alarm; `join` is not notified of the last
//!   delivery;
//! - the rings: a worker that waits for space is not woken; results are not staged; a frame is sent
//!   without the wish to be rung for it;
//! - taking back: one item more or fewer counts as begun; nothing is taken back before a kill; the
//!   lost item is run again without being asked to; and all that `reclaim` has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::explore;
use super::fake::ModelPool;
use super::launcher::{Processes, config, pool};
use crate::api::pool::Pool;
use crate::error::task_error::TaskErrorKind;
use crate::sync::thread::{self, JoinHandle, Thread};
use crate::sync::{Life, for_each_run};
use crate::sys::Clock;

/// How long the supervisor naps where bells follow each other closely.
const NAP_NS: u64 = 50_000;

/// Sees to it that nobody had to be saved by an alarm.
pub(super) fn awake() {
    let waited = Clock::longest_wait();
    assert!(waited <= NAP_NS, "all slept, for {waited} ns");
}

for_each_run! {
    /// How often each item was run.
    static ref RUNS: Mutex<BTreeMap<u32, u32>> = Mutex::default();
}

pub(super) fn counted(item: u32) -> u32 {
    *RUNS.lock().expect("no panic").entry(item).or_default() += 1;
    item + 1000
}

pub(super) fn runs(item: u32) -> u32 {
    let runs = RUNS.lock().expect("no panic");
    runs.get(&item).copied().unwrap_or(0)
}

pub(super) fn spawn(pool: &Arc<ModelPool>, body: fn(&ModelPool)) -> JoinHandle<()> {
    let pool = pool.clone();
    let thread = thread::Builder::new().spawn(move || body(&pool));
    thread.expect("a thread")
}

pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// Waits for a future as any executor would that knows nothing of pools.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn one_thread_waits() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        assert_eq!(pool.apply(counted, 1).expect("a value"), 1001);
        assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        awake();
    });
}

#[test]
fn several_threads_wait() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        join([
            spawn(&pool, |pool| {
                assert_eq!(pool.apply(counted, 1).expect("a value"), 1001);
                assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
            }),
            spawn(&pool, |pool| {
                assert_eq!(pool.apply(counted, 3).expect("a value"), 1003);
            }),
            spawn(&pool, |pool| {
                assert_eq!(pool.apply(counted, 4).expect("a value"), 1004);
            }),
        ]);
        awake();
    });
}

/// Where the wake-up was once lost: the supervisor hears bells, and a thread begins to lead.
#[test]
fn one_submits_and_others_wait() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let handles: Vec<_> = (0..3).map(|n| pool.apply_async(counted, n)).collect();
        let waiting = handles.into_iter().zip(0..).map(|(handle, n)| {
            let thread = thread::Builder::new().spawn(move || {
                assert_eq!(handle.get().expect("a value"), n + 1000);
            });
            thread.expect("a thread")
        });
        let waiting: Vec<_> = waiting.collect();
        assert_eq!(pool.apply(counted, 3).expect("a value"), 1003);
        join(waiting);
        awake();
    });
}

#[test]
fn nobody_drives() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let first = pool.apply_async(counted, 1);
        let second = pool.map_async(counted, 2..5);
        assert_eq!(block_on(first).expect("a value"), 1001);
        assert_eq!(block_on(second).expect("values"), [1002, 1003, 1004]);
        awake();
    });
}

#[test]
fn futures_and_waiting_threads_mix() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let future = pool.apply_async(counted, 1);
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        });
        assert_eq!(block_on(future).expect("a value"), 1001);
        join([waiting]);
        awake();
    });
}

#[test]
fn callbacks_are_called() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let handle = pool.apply_async(counted, 1);
        handle.on_complete(|outcome| {
            counted(outcome.clone().expect("a value"));
        });
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        });
        join([waiting]);
        pool.close();
        pool.join().expect("it is closed");
        assert_eq!(runs(1001), 1);
        awake();
    });
}

#[test]
fn maps_are_fed() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let waiting = spawn(&pool, |pool| {
            let values = pool.call(counted).chunksize(2).map(0..6).expect("values");
            assert_eq!(values, [1000, 1001, 1002, 1003, 1004, 1005]);
        });
        let mut values: Vec<u32> = pool
            .call(counted)
            .buffer(2)
            .imap_unordered(10..14)
            .map(|value| value.expect("a value"))
            .collect();
        values.sort_unstable();
        assert_eq!(values, [1010, 1011, 1012, 1013]);
        join([waiting]);
        for item in (0..6).chain(10..14) {
            assert_eq!(runs(item), 1, "item {item}");
        }
    });
}

/// Arguments and results that are larger than the rings, both ways at the same time.
#[test]
fn large_messages_stream() {
    fn turned(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let argument: Vec<u8> = (0..200).collect();
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(turned, vec![1; 150]).expect("bytes"), [1; 150]);
        });
        let handle = pool.apply_async(turned, argument.clone());
        assert_eq!(turned(handle.get().expect("bytes")), argument);
        join([waiting]);
        awake();
    });
}

#[test]
fn who_spins_lets_others_go_on() {
    explore(|| {
        Clock::set_processors(4);
        let (_engine, pool) = pool(config(1), &Processes::default());
        let handle = pool.apply_async(counted, 1);
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        });
        assert_eq!(handle.get().expect("a value"), 1001);
        join([waiting]);
        awake();
    });
}

/// A wait that is over hands the leadership on.
#[test]
fn waits_end_at_their_deadline() {
    fn slow(_: u32) {
        Life::sleep_away()
    }
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let never = pool.apply_async(slow, 1);
        let impatient = thread::Builder::new().spawn(move || {
            assert!(!never.wait_timeout(Duration::from_millis(1)));
            never.kill();
            assert_eq!(
                never.get().expect_err("killed").kind(),
                TaskErrorKind::Cancelled
            );
        });
        let patient = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        });
        join([impatient.expect("a thread"), patient]);
        assert_eq!(pool.apply(counted, 3).expect("a value"), 1003);
    });
}

#[test]
fn items_end_at_their_deadline() {
    fn slow(item: u32) -> u32 {
        if item == 1 {
            Life::sleep_away();
        }
        counted(item)
    }
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 10).expect("a value"), 1010);
        });
        let call = pool.call(slow).timeout(Duration::from_millis(1));
        let outcomes = call.chunksize(3).try_map(0..4);
        for (item, outcome) in (0..).zip(outcomes) {
            match outcome {
                Ok(value) => assert_eq!(value, item + 1000),
                Err(error) => {
                    assert_eq!((item, error.kind()), (1, TaskErrorKind::TimedOut));
                }
            }
            assert_eq!(runs(item), u32::from(item != 1), "item {item}");
        }
        join([waiting]);
    });
}

/// No thread leads: the supervisor keeps the time.
#[test]
fn deadlines_are_kept_without_a_driver() {
    fn slow(_: u32) {
        Life::sleep_away()
    }
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let first = pool.apply_async(counted, 1);
        let call = pool.call(slow).timeout(Duration::from_millis(1));
        let late = call.apply_async(2);
        let error = block_on(late).expect_err("killed");
        assert_eq!(error.kind(), TaskErrorKind::TimedOut);
        assert_eq!(block_on(first).expect("a value"), 1001);
        assert_eq!(pool.apply(counted, 3).expect("a value"), 1003);
        assert!(Clock::longest_wait() <= 2_000_000, "the time was kept");
    });
}

/// Workers are killed by somebody, at any of their steps. Each item is run once, or its worker
/// was lost.
#[test]
fn workers_are_killed() {
    explore(|| {
        let processes = Processes::default();
        let (_engine, pool) = pool(config(2), &processes);
        let killer = thread::Builder::new().spawn(move || {
            for _ in 0..3 {
                processes.kill_one();
                thread::spin_loop();
            }
        });
        let waiting = spawn(&pool, |pool| check_fates(pool, 10));
        check_fates(&pool, 0);
        join([waiting, killer.expect("a thread")]);
    });
}

pub(super) fn check_fates(pool: &ModelPool, first: u32) {
    let outcomes = pool.call(counted).chunksize(3).try_map(first..first + 5);
    assert_eq!(outcomes.len(), 5);
    for (item, outcome) in (first..).zip(outcomes) {
        match outcome {
            Ok(value) => {
                assert_eq!(value, item + 1000);
                assert_eq!(runs(item), 1, "item {item}");
            }
            Err(error) => {
                assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
                assert!(runs(item) <= 1, "item {item}");
            }
        }
    }
}

#[test]
fn lost_items_are_tried_again() {
    explore(|| {
        let processes = Processes::default();
        let (_engine, pool) = pool(config(2), &processes);
        let killer = thread::Builder::new().spawn(move || {
            for _ in 0..3 {
                processes.kill_one();
                thread::spin_loop();
            }
        });
        // There are more tries than deaths.
        let call = pool.call(counted).retries(3).chunksize(2);
        let values = call.map(0..4).expect("values");
        assert_eq!(values, [1000, 1001, 1002, 1003]);
        join([killer.expect("a thread")]);
    });
}

#[test]
fn tasks_are_cancelled_and_killed() {
    fn slow(item: u32) -> u32 {
        if item.is_multiple_of(2) {
            Life::sleep_away();
        }
        counted(item)
    }
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let killed = pool.call(slow).chunksize(3).map_async(0..5);
        let alive = pool.call(counted).chunksize(1).map_async(10..14);
        let cancelled = pool.apply_async(counted, 20);
        cancelled.cancel();
        let killer = thread::Builder::new().spawn(move || {
            killed.kill();
            let error = killed.get().expect_err("killed");
            assert_eq!(error.kind(), TaskErrorKind::Cancelled);
        });
        assert_eq!(alive.get().expect("values"), [1010, 1011, 1012, 1013]);
        let cancelled = cancelled.get().map_err(|error| error.kind());
        assert!(matches!(
            cancelled,
            Ok(1020) | Err(TaskErrorKind::Cancelled)
        ));
        join([killer.expect("a thread")]);
        for item in (1..5).step_by(2).chain([20]) {
            assert!(runs(item) <= 1, "item {item}");
        }
    });
}

/// A call that is cancelled takes what waits behind it in its worker back, again and again.
#[test]
fn what_is_taken_back_is_run_once() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let kept = pool.call(counted).chunksize(4).map_async(0..8);
        let canceller = spawn(&pool, |pool| {
            for item in 20..24 {
                let handle = pool.apply_async(counted, item);
                handle.cancel();
                match handle.get() {
                    Ok(value) => assert_eq!((value, runs(item)), (item + 1000, 1)),
                    Err(error) => assert_eq!(error.kind(), TaskErrorKind::Cancelled),
                }
                assert!(runs(item) <= 1, "item {item}");
            }
        });
        let values: Vec<u32> = (1000..1008).collect();
        assert_eq!(kept.get().expect("values"), values);
        for item in 0..8 {
            assert_eq!(runs(item), 1, "item {item}");
        }
        join([canceller]);
    });
}

#[test]
fn workers_are_replaced_and_retire() {
    explore(|| {
        let mut config = config(2);
        config.workers.set_max_tasks_per_child(1);
        let (_engine, pool) = pool(config, &Processes::default());
        let values = pool.call(counted).chunksize(1).map(0..4).expect("values");
        assert_eq!(values, [1000, 1001, 1002, 1003]);
        let last = pool.apply_async(counted, 4);
        pool.close();
        assert_eq!(
            pool.apply(counted, 5).expect_err("closed").kind(),
            TaskErrorKind::Closed
        );
        pool.join().expect("it is closed");
        assert_eq!(last.get().expect("a value"), 1004);
        assert_eq!((runs(4), runs(5)), (1, 0));
    });
}

/// `join` waits for what other threads deliver.
#[test]
fn a_pool_is_joined_while_others_wait() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let handle = pool.apply_async(counted, 1);
        let called = Arc::new(AtomicBool::new(false));
        let call = called.clone();
        handle.on_complete(move |_| call.store(true, Ordering::Relaxed));
        let waiting = thread::Builder::new().spawn(move || {
            assert_eq!(handle.get().expect("a value"), 1001);
        });
        let late = spawn(&pool, |pool| match pool.apply(counted, 2) {
            Ok(value) => assert_eq!(value, 1002),
            Err(error) => assert_eq!(error.kind(), TaskErrorKind::Closed),
        });
        pool.close();
        pool.join().expect("it is closed");
        assert!(called.load(Ordering::Relaxed), "callbacks are waited for");
        join([waiting.expect("a thread"), late]);
        awake();
    });
}

#[test]
fn initializers_come_first_and_may_fail() {
    fn initialize(item: u32) {
        counted(item);
    }
    fn finalize() {
        counted(101);
    }
    explore(|| {
        let mut config = config(2);
        config.workers.set_initializer(initialize, &100);
        config.workers.set_finalizer(finalize);
        let (_engine, pool) = pool(config, &Processes::default());
        assert_eq!(pool.apply(counted, 1).expect("a value"), 1001);
        pool.close();
        pool.join().expect("it is closed");
        assert_eq!((runs(100), runs(101)), (2, 2));
    });
}

#[test]
fn a_pool_ends_at_once() {
    fn slow(item: u32) -> u32 {
        if item == 1 {
            Life::sleep_away();
        }
        item
    }
    explore(|| {
        let (engine, pool) = pool(config(1), &Processes::default());
        let running = pool.apply_async(slow, 1);
        let waiting = thread::Builder::new().spawn(move || {
            let error = running.get().expect_err("terminated");
            assert_eq!(error.kind(), TaskErrorKind::Cancelled);
        });
        let late = spawn(&pool, |pool| {
            let kind = pool.apply(slow, 2).map_err(|error| error.kind());
            let (cancelled, closed) = (TaskErrorKind::Cancelled, TaskErrorKind::Closed);
            assert!(kind == Err(cancelled) || kind == Err(closed), "{kind:?}");
        });
        drop(engine);
        join([waiting.expect("a thread"), late]);
        awake();
    });
}
