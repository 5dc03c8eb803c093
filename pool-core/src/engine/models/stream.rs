//! shuttle: tasks that emit values, with readers that are slow, that go, that never come, and
//! workers that are killed. A worker that is not told what was consumed, and a reader that is not
//! told what has come, sleep for good.
//!
//! Found: a reader that takes the last values of a task told the worker so, while that was at the
//! next task and waited for the reader of that.
//!
//! Caught when broken on purpose: the worker is not woken when values were consumed, or when its
//! item is asked to stop; credit is given only when more than the buffer was consumed; a reader is
//! not woken for a value, or for the end; `join` lets tasks wait for their readers.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::explore;
use super::launcher::{Processes, config, pool};
use super::pool::{awake, counted, join, runs, spawn};
use crate::api::pool::Pool;
use crate::api::stream_handle::StreamHandle;
use crate::error::task_error::TaskErrorKind;
use crate::sync::thread::{self, Thread};
use crate::worker::emitter::Emitter;

/// Emits so many numbers, and says how many were wanted.
fn count(length: u32, out: &Emitter<u32>) -> u32 {
    (0..length)
        .find(|number| out.emit(*number).is_err())
        .unwrap_or(length)
}

/// Notes when nobody wants more.
fn count_on(name: u32, out: &Emitter<u32>) {
    let mut number = 0;
    while out.emit(number).is_ok() {
        number += 1;
    }
    counted(name);
}

fn check_all(values: &mut StreamHandle<u32, u32>, length: u32) {
    for number in 0..length {
        assert_eq!(values.next(), Some(Ok(number)));
    }
    assert_eq!(values.next(), None);
}

#[test]
fn values_pass() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        for buffer in [1, 2, 3] {
            let mut values = pool.call(count).buffer(buffer).stream(5);
            check_all(&mut values, 5);
            assert_eq!(values.result(), Ok(5));
        }
        awake();
    });
}

#[test]
fn streams_and_tasks_mix() {
    explore(|| {
        let (_engine, pool) = pool(config(2), &Processes::default());
        let others = [
            spawn(&pool, |pool| {
                assert_eq!(pool.apply(counted, 1).expect("a value"), 1001);
                check_all(&mut pool.call(count).buffer(2).stream(3), 3);
            }),
            spawn(&pool, |pool| {
                let values = pool.call(count).buffer(1).stream(4);
                assert_eq!(values.result(), Ok(4), "nobody has read them");
            }),
        ];
        check_all(&mut pool.call(count).buffer(1).stream(4), 4);
        join(others);
        awake();
    });
}

/// The reader of a task is behind, and its worker at the next one, which waits for another reader.
#[test]
fn a_stream_follows_another() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let mut first = pool.call(count).buffer(3).stream(3);
        let mut second = pool.call(count).buffer(1).stream(3);
        let reader = thread::Builder::new().spawn(move || check_all(&mut second, 3));
        check_all(&mut first, 3);
        join([reader.expect("a thread")]);
        awake();
    });
}

/// As any executor would that knows nothing of pools.
#[test]
fn values_are_awaited() {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let mut values = pool.call(count).buffer(2).stream(4);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        for number in 0..4 {
            while !values.poll(Some(&waker)) {
                thread::park();
            }
            assert_eq!(values.next_ready(), Some(Ok(number)));
        }
        let mut handle = std::pin::pin!(values.into_result());
        let result = loop {
            match handle.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => break result,
                Poll::Pending => thread::park(),
            }
        };
        assert_eq!(result, Ok(4));
        awake();
    });
}

/// Every task that has begun ends, for it learns that its reader is gone.
#[test]
fn readers_go() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let waiting = spawn(&pool, |pool| {
            assert_eq!(pool.apply(counted, 1).expect("a value"), 1001);
        });
        let mut dropped = pool.call(count_on).buffer(2).stream(10);
        assert_eq!(dropped.next(), Some(Ok(0)));
        drop(dropped);
        let mut cancelled = pool.call(count_on).buffer(2).stream(11);
        assert_eq!(cancelled.next(), Some(Ok(0)));
        cancelled.cancel();
        // The only worker must be done with it, though nobody reads what it has emitted.
        assert_eq!(pool.apply(counted, 2).expect("a value"), 1002);
        assert_eq!(runs(11), 1);
        let error = cancelled.result().expect_err("it was cancelled");
        assert_eq!(error.kind(), TaskErrorKind::Cancelled);
        drop(pool.call(count_on).buffer(1).stream(12).kill_on_drop());
        join([waiting]);
        pool.close();
        pool.join().expect("it is closed");
        assert_eq!(runs(10), 1);
    });
}

/// The thread that would read waits for the end.
#[test]
fn nobody_reads() {
    explore(|| {
        let (_engine, pool) = pool(config(1), &Processes::default());
        let mut running = pool.call(count).buffer(1).stream(4);
        let mut queued = pool.call(count).buffer(2).stream(5);
        assert_eq!(running.next(), Some(Ok(0)));
        pool.close();
        pool.join().expect("it is closed");
        for number in 1..4 {
            assert_eq!(running.next(), Some(Ok(number)));
        }
        check_all(&mut queued, 5);
        awake();
    });
}

/// What comes is what was emitted, from the first value on; nothing comes twice.
#[test]
fn workers_that_emit_are_killed() {
    explore(|| {
        let processes = Processes::default();
        let (_engine, pool) = pool(config(2), &processes);
        let killer = thread::Builder::new().spawn(move || {
            for _ in 0..3 {
                processes.kill_one();
                thread::spin_loop();
            }
        });
        let other = spawn(&pool, |pool| check_prefix(pool, 1));
        check_prefix(&pool, 2);
        join([other, killer.expect("a thread")]);
    });
}

fn check_prefix(pool: &super::fake::ModelPool, buffer: usize) {
    let mut values = pool.call(count).buffer(buffer).retries(3).stream(4);
    let mut next = 0;
    let end = loop {
        match values.next() {
            Some(Ok(number)) => assert_eq!(number, next),
            end => break end,
        }
        next += 1;
    };
    match end {
        None => assert_eq!(values.result(), Ok(next)),
        Some(end) => {
            let error = end.expect_err("values were taken");
            assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
            assert!(next > 0, "what has emitted nothing is tried again");
        }
    }
}
