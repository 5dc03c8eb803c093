//! Tasks that give values while they run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use futures_core::FusedStream;
use procpool::{Broadcast, Disconnected, Emitter, Fd, Pool, StreamHandle, TaskErrorKind};
use serde::{Deserialize, Serialize};

use crate::backends::{Builder, Processes, Subject};
use crate::descriptors::{file_of, read};
use crate::failure_modes::{Fate, strike};
use crate::file_barrier::{self, Gate, Tally};
use crate::futures::{block_on, next};
use crate::procfs::{self, wait_until, workers};
use crate::trial::Test;

pub(crate) fn every_pool<S: Subject>() -> Vec<Test> {
    if !S::CARRIES_VALUES {
        return tests![S: it_says_that_it_carries_none];
    }
    let mut tests = tests![S:
        values_come_in_order_and_then_the_result,
        a_value_comes_before_the_next_one_is_made,
        there_may_be_no_values,
        nested_values_arrive,
        large_values_arrive,
        many_values_arrive,
        a_reader_that_is_slow_stops_the_task,
        a_panic_comes_behind_the_values,
        a_value_that_cannot_be_encoded_ends_the_task,
        a_task_may_catch_what_ends_it,
        the_result_can_be_had_without_the_values,
        a_handle_that_is_dropped_ends_the_task,
        a_task_that_is_cancelled_can_emit_no_more,
        streams_wait_for_their_turn,
        options_that_make_no_sense_are_refused,
        a_pool_that_is_closed_takes_none,
        what_fails_behind_values_is_not_tried_again,
        what_fails_without_values_is_tried_again,
        streams_are_read_in_any_order,
        values_are_awaited,
        a_stream_that_is_dropped_ends_the_task,
        a_value_may_be_shared,
        a_value_may_have_what_came_with_the_argument,
    ];
    if S::PASSES_DESCRIPTORS {
        tests.extend(tests![S:
            a_value_may_have_descriptors,
            descriptors_that_nobody_reads_are_closed,
            too_many_descriptors_in_a_value,
        ]);
    } else {
        tests.extend(tests![S: a_descriptor_in_a_value_goes_to_no_other_machine]);
    }
    tests
}

pub(crate) fn processes<S: Processes>() -> Vec<Test> {
    tests![S:
        a_crash_comes_behind_the_values,
        what_has_emitted_is_not_tried_again,
        what_has_emitted_nothing_is_tried_again,
        a_task_that_waits_for_its_reader_is_killed,
        a_task_that_waits_for_its_reader_times_out,
        a_task_that_waits_for_its_reader_is_terminated,
        a_task_that_waits_for_its_reader_has_a_deadline,
        join_waits_for_no_reader,
        a_value_that_is_too_large_ends_the_task,
        other_tasks_run_beside,
        handles_outlive_a_crash,
        a_handle_of_the_argument_outlives_a_crash,
        many_shared_values_arrive,
    ]
}

/// Emits the numbers below `count`, and says how many the caller wanted.
fn count(count: u64, out: &Emitter<u64>) -> u64 {
    for number in 0..count {
        if out.emit(number).is_err() {
            return number;
        }
    }
    count
}

/// Emits numbers until the caller wants no more, and says how many were emitted in a file.
fn count_on(tally: String, out: &Emitter<u64>) {
    let mut emitted = 0;
    while out.emit(emitted).is_ok() {
        emitted += 1;
    }
    file_barrier::add(&tally, emitted);
}

/// All values, which have no errors among them.
fn all<Y, R>(values: &mut StreamHandle<Y, R>) -> Vec<Y>
where
    StreamHandle<Y, R>: Iterator<Item = Result<Y, procpool::TaskError>>,
{
    values.by_ref().collect::<Result<_, _>>().unwrap()
}

fn it_says_that_it_carries_none<S: Subject>() {
    let pool = S::pool(1);
    let mut values = pool.call(count).stream(3);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Invalid, "{error}");
    assert!(values.next().is_none());
    assert_eq!(values.result().unwrap_err().kind(), TaskErrorKind::Invalid);
}

fn values_come_in_order_and_then_the_result<S: Subject>() {
    let pool = S::pool(2);
    for length in [1, 2, 31, 32, 33, 1000] {
        for buffer in [1, 2, 3, 64, 5000] {
            let mut values = pool.call(count).buffer(buffer).stream(length);
            assert_eq!(all(&mut values), Vec::from_iter(0..length));
            assert!(values.next().is_none());
            assert_eq!(values.result().unwrap(), length);
        }
    }
}

/// Each value is there while the task waits for what follows from it.
fn a_value_comes_before_the_next_one_is_made<S: Subject>() {
    let pool = S::pool(1);
    let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
    let tickets: Vec<String> = gates.iter().map(Gate::ticket).collect();
    let task = |tickets: Vec<String>, out: &Emitter<usize>| {
        for (index, ticket) in tickets.iter().enumerate() {
            out.emit(index).unwrap();
            file_barrier::pass(ticket);
        }
    };
    let mut values = pool.call(task).stream(tickets);
    for (index, gate) in gates.iter().enumerate() {
        assert_eq!(values.next().unwrap().unwrap(), index);
        gate.open();
    }
    assert!(values.next().is_none());
    values.result().unwrap();
}

fn there_may_be_no_values<S: Subject>() {
    let pool = S::pool(1);
    let mut values = pool.call(count).stream(0);
    assert!(values.next().is_none());
    assert_eq!(values.result().unwrap(), 0);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Finding {
    Nothing,
    Text(String, Vec<Option<Box<Finding>>>),
}

fn nested_values_arrive<S: Subject>() {
    fn finding(depth: u32) -> Finding {
        if depth == 0 {
            return Finding::Nothing;
        }
        let inner = (0..depth).map(|it| (it % 2 == 0).then(|| Box::new(finding(it))));
        Finding::Text(format!("depth {depth}"), inner.collect())
    }
    let task = |depth: u32, out: &Emitter<Result<Finding, String>>| {
        for depth in 0..depth {
            out.emit(Ok(finding(depth))).unwrap();
            out.emit(Err(format!("none at {depth}"))).unwrap();
        }
        finding(depth)
    };
    let pool = S::pool(1);
    let mut values = pool.call(task).stream(6);
    for depth in 0..6 {
        assert_eq!(values.next().unwrap().unwrap(), Ok(finding(depth)));
        let none = Err(format!("none at {depth}"));
        assert_eq!(values.next().unwrap().unwrap(), none);
    }
    assert_eq!(values.result().unwrap(), finding(6));
}

/// Several times as large as a ring.
fn large_values_arrive<S: Subject>() {
    let task = |sizes: Vec<usize>, out: &Emitter<Vec<u8>>| {
        for size in sizes {
            let value = (0..size).map(|it| (it * 7) as u8);
            out.emit(value.collect()).unwrap();
        }
    };
    let pool = S::pool(1);
    let sizes = [0, 1, 63, 64, 65, 4096, 70_000, 5 << 20, 3, 6 << 20];
    let values = pool.call(task).buffer(3).stream(sizes.to_vec());
    for (value, size) in values.zip(sizes) {
        let value = value.unwrap();
        assert_eq!(value.len(), size);
        assert!(
            value
                .iter()
                .enumerate()
                .all(|(at, it)| *it == (at * 7) as u8)
        );
    }
}

fn many_values_arrive<S: Subject>() {
    let pool = S::pool(1);
    let mut values = pool.call(count).stream(100_000);
    for number in 0..100_000 {
        assert_eq!(values.next(), Some(Ok(number)));
    }
    assert_eq!(values.result().unwrap(), 100_000);
}

/// The task is never further ahead than the buffer.
fn a_reader_that_is_slow_stops_the_task<S: Subject>() {
    let task = |tally: String, out: &Emitter<u64>| {
        for number in 0..200 {
            out.emit(number).unwrap();
            file_barrier::add(&tally, number);
        }
    };
    let pool = S::pool(1);
    for buffer in [1, 2, 7, 16] {
        let tally = Tally::new();
        let mut values = pool.call(task).buffer(buffer).stream(tally.ticket());
        for read in 0..200 {
            // It emits what it may, in the end.
            wait_until(|| tally.count() >= (read + buffer.div_ceil(2)).min(200));
            let emitted = tally.count();
            let most = read + buffer * S::STREAM_BUFFERS + usize::from(S::STREAM_BUFFERS > 1);
            assert!(emitted <= most, "{emitted} emitted, {read} read");
            assert_eq!(values.next(), Some(Ok(read as u64)));
        }
        values.result().unwrap();
    }
}

fn a_panic_comes_behind_the_values<S: Subject>() {
    let task = |values: u64, out: &Emitter<u64>| -> u64 {
        count(values, out);
        panic!("after {values}");
    };
    let pool = S::pool(1);
    for length in [0, 1, 20, 100] {
        let mut values = pool.call(task).stream(length);
        for number in 0..length {
            assert_eq!(values.next(), Some(Ok(number)));
        }
        let error = values.next().unwrap().unwrap_err();
        assert!(error.is_panic(), "{error}");
        assert!(error.to_string().contains(&format!("after {length}")));
        assert!(values.next().is_none());
        assert!(values.result().unwrap_err().is_panic());
    }
}

#[derive(Deserialize)]
struct Unfit;

impl Serialize for Unfit {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is unfit"))
    }
}

fn a_value_that_cannot_be_encoded_ends_the_task<S: Subject>() {
    let task = |(), out: &Emitter<Option<Unfit>>| {
        out.emit(None).unwrap();
        let goes_on = out.emit(Some(Unfit));
        assert!(goes_on.is_ok(), "and it is not reached");
    };
    let pool = S::pool(1);
    let mut values = pool.call(task).stream(());
    assert!(values.next().unwrap().unwrap().is_none());
    let error = values.next().unwrap().err().unwrap();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("it is unfit"), "{error}");
    // It was no crash.
    assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
}

/// Then it goes on, and the panic of a later one is that.
fn a_task_may_catch_what_ends_it<S: Subject>() {
    let task = |(), out: &Emitter<Option<Unfit>>| {
        let emit = AssertUnwindSafe(|| out.emit(Some(Unfit)));
        assert!(catch_unwind(emit).is_err());
        out.emit(None).is_ok()
    };
    let pool = S::pool(1);
    let mut values = pool.call(task).stream(());
    assert!(values.next().unwrap().unwrap().is_none());
    assert!(values.next().is_none());
    assert_eq!(values.result(), Ok(true));
    let fail = |()| -> u64 { panic!("for another reason") };
    let error = pool.apply(fail, ()).unwrap_err();
    assert_eq!(error.panic_message(), Some("for another reason"));
}

/// The task runs to its end without a reader.
fn the_result_can_be_had_without_the_values<S: Subject>() {
    let pool = S::pool(1);
    for read in [0, 1, 40] {
        let mut values = pool.call(count).stream(1000);
        assert_eq!(values.by_ref().take(read).count(), read);
        assert_eq!(values.result().unwrap(), 1000);
        let values = pool.call(count).stream(1000);
        let handle = values.into_result();
        handle.wait();
        assert_eq!(handle.get(), Ok(1000));
    }
}

fn a_handle_that_is_dropped_ends_the_task<S: Subject>() {
    let pool = S::pool(1);
    for read in [0, 1, 100] {
        let tally = Tally::new();
        let mut values = pool.call(count_on).stream(tally.ticket());
        // It runs.
        assert_eq!(values.by_ref().take(read + 1).count(), read + 1);
        drop(values);
        wait_until(|| tally.count() == 1);
        let emitted = tally.numbers()[0] as usize;
        let most = read + 2 + 32 * S::STREAM_BUFFERS;
        assert!((read + 1..=most).contains(&emitted), "{emitted}");
        assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
    }
}

/// Values that were there stay, and the outcome is that it was cancelled.
fn a_task_that_is_cancelled_can_emit_no_more<S: Subject>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let mut values = pool.call(count_on).buffer(4).stream(tally.ticket());
    assert_eq!(values.next(), Some(Ok(0)));
    values.cancel();
    values.cancel();
    wait_until(|| tally.count() == 1);
    let emitted = u64::from(tally.numbers()[0]);
    let rest: Vec<u64> = values.by_ref().map_while(Result::ok).collect();
    // What was on its way between two machines is given up.
    let is_whole = S::STREAM_BUFFERS > 1 || rest.len() as u64 + 1 == emitted;
    assert!(is_whole, "{rest:?} of {emitted}");
    assert_eq!(rest, Vec::from_iter(1..=rest.len() as u64));
    assert!(values.result().unwrap_err().is_cancelled());
}

/// More of them than workers, read in turn, and in another order than they were made.
fn streams_wait_for_their_turn<S: Subject>() {
    let pool = S::pool(2);
    let mut all: Vec<_> = (0..6)
        .map(|index| (index, pool.call(count).buffer(2).stream(index * 10)))
        .collect();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for (index, mut values) in all.drain(..).rev() {
            let sender = sender.clone();
            scope.spawn(move || {
                let read = values.by_ref().map(Result::unwrap).count() as u64;
                sender.send((index * 10, read, values.result())).unwrap();
            });
        }
    });
    drop(sender);
    for (length, read, result) in receiver {
        assert_eq!((read, result), (length, Ok(length)));
    }
}

fn options_that_make_no_sense_are_refused<S: Subject>() {
    let pool = S::pool(1);
    let mut values = pool.call(count).buffer(0).stream(3);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Invalid, "{error}");
    assert!(values.next().is_none());
}

fn a_pool_that_is_closed_takes_none<S: Subject>() {
    let pool = S::pool(1);
    pool.close();
    let mut values = pool.call(count).stream(3);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Closed, "{error}");
    pool.join().unwrap();
}

/// Emits so many values, and panics at its first runs.
fn fail_twice((tally, length): (String, u64), out: &Emitter<u64>) -> u64 {
    count(length, out);
    file_barrier::add(&tally, "runs");
    assert!(file_barrier::lines(&tally) > 2, "too early");
    length
}

/// Whatever the caller says of errors, it must not have values twice.
fn what_fails_behind_values_is_not_tried_again<S: Subject>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool
        .call(fail_twice)
        .retries(5)
        .retry_if(|error| error.is_panic());
    let mut values = call.stream((tally.ticket(), 3));
    for number in 0..3 {
        assert_eq!(values.next(), Some(Ok(number)));
    }
    assert!(values.next().unwrap().unwrap_err().is_panic());
    assert!(values.next().is_none());
    assert!(values.result().unwrap_err().is_panic());
    assert_eq!(tally.count(), 1);
}

fn what_fails_without_values_is_tried_again<S: Subject>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let call = pool
        .call(fail_twice)
        .retries(5)
        .retry_if(|error| error.is_panic());
    let mut values = call.stream((tally.ticket(), 0));
    assert!(values.next().is_none());
    assert_eq!(values.result(), Ok(0));
    assert_eq!(tally.count(), 3);
}

/// Streams are read, dropped and asked for their results in any order, in one thread.
fn streams_are_read_in_any_order<S: Subject>() {
    let pool = S::pool(1);
    // Each has begun before the next one is called: not all pools begin them in this order, and one
    // that waits for its reader has the only worker.
    let mut first = pool.call(count).buffer(40).stream(30);
    assert_eq!(first.next(), Some(Ok(0)));
    let mut second = pool.call(count).buffer(4).stream(30);
    assert_eq!(second.next(), Some(Ok(0)));
    let third = pool.call(count).buffer(4).stream(30);
    // It has ended, and its values are read while the next one waits.
    assert_eq!(all(&mut first), Vec::from_iter(1..30));
    assert_eq!(all(&mut second), Vec::from_iter(1..30));
    assert_eq!(third.result(), Ok(30));
    assert_eq!((first.result(), second.result()), (Ok(30), Ok(30)));
}

fn values_are_awaited<S: Subject>() {
    let pool = S::pool(2);
    let read_all = async |length: u64, buffer| {
        let mut values = pool.call(count).buffer(buffer).stream(length).into_stream();
        for number in 0..length {
            assert_eq!(next(&mut values).await, Some(Ok(number)));
        }
        assert!(!values.is_terminated());
        assert_eq!(next(&mut values).await, None);
        assert!(values.is_terminated());
        assert_eq!(next(&mut values).await, None);
        assert_eq!(values.into_result().await, Ok(length));
    };
    for (length, buffer) in [(0, 1), (1, 1), (20, 1), (100, 7), (1000, 64)] {
        block_on(read_all(length, buffer));
    }
    let fail = |_: u64, out: &Emitter<u64>| -> u64 {
        out.emit(1).unwrap();
        panic!("in vain")
    };
    let mut values = pool.call(fail).stream(0).into_stream();
    assert_eq!(block_on(next(&mut values)), Some(Ok(1)));
    assert!(block_on(next(&mut values)).unwrap().unwrap_err().is_panic());
    assert_eq!(block_on(next(&mut values)), None);
    assert!(block_on(values.into_result()).unwrap_err().is_panic());
}

fn a_stream_that_is_dropped_ends_the_task<S: Subject>() {
    let pool = S::pool(1);
    let tally = Tally::new();
    let mut values = pool.call(count_on).stream(tally.ticket()).into_stream();
    assert_eq!(block_on(next(&mut values)), Some(Ok(0)));
    drop(values);
    wait_until(|| tally.count() == 1);
    assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
}

/// Whatever was emitted whole before the worker died.
fn a_crash_comes_behind_the_values<S: Processes>() {
    let pool = S::quiet_pool(2);
    for fate in Fate::DEADLY {
        for length in [0, 1, 20, 100] {
            let task = |(length, fate): (u64, Fate), out: &Emitter<u64>| {
                count(length, out);
                strike(fate).unwrap()
            };
            let mut values = pool.call(task).stream((length, fate));
            for number in 0..length {
                assert_eq!(values.next(), Some(Ok(number)), "{fate:?}");
            }
            let error = values.next().unwrap().unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
            fate.assert_told(&error);
            assert!(values.next().is_none());
            fate.assert_told(&values.result().unwrap_err());
        }
    }
}

fn crash_at_first((tally, length): (String, u64), out: &Emitter<u64>) -> u64 {
    count(length, out);
    file_barrier::add(&tally, "runs");
    if file_barrier::lines(&tally) == 1 {
        std::process::abort();
    }
    length
}

/// The caller has values of the first run, and must not have them twice.
fn what_has_emitted_is_not_tried_again<S: Processes>() {
    let pool = S::quiet_pool(1);
    let tally = Tally::new();
    let call = pool.call(crash_at_first).retries(3);
    let mut values = call.stream((tally.ticket(), 2));
    assert_eq!(values.next(), Some(Ok(0)));
    assert_eq!(values.next(), Some(Ok(1)));
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
    assert!(values.next().is_none());
    assert_eq!(tally.count(), 1);
}

fn what_has_emitted_nothing_is_tried_again<S: Processes>() {
    let pool = S::quiet_pool(1);
    let tally = Tally::new();
    let call = pool.call(crash_at_first).retries(3);
    let mut values = call.stream((tally.ticket(), 0));
    assert!(values.next().is_none());
    assert_eq!(values.result().unwrap(), 0);
    assert_eq!(tally.count(), 2);
}

/// Emits more than anybody reads, and says so before.
fn emit_unread(gate: String, out: &Emitter<u64>) {
    file_barrier::add(&gate, std::process::id());
    while out.emit(1).is_ok() {}
}

/// A stream whose task waits for its reader.
fn waiting<S: Processes>(pool: &S::Pool, timeout: Option<Duration>) -> StreamHandle<u64, ()> {
    let gate = Gate::new();
    let mut call = pool.call(emit_unread).buffer(4);
    if let Some(timeout) = timeout {
        call = call.timeout(timeout);
    }
    let values = call.stream(gate.ticket());
    let pid = gate.wait_for(1)[0];
    // In the futex of its region, or not alive.
    wait_until(|| procfs::state(pid).is_none_or(|state| state.starts_with('S')));
    values
}

fn a_task_that_waits_for_its_reader_is_killed<S: Processes>() {
    let pool = S::pool(1);
    let before = workers(&pool);
    let mut values = waiting::<S>(&pool, None);
    values.kill();
    assert_eq!(values.by_ref().map_while(Result::ok).count(), 4);
    assert!(values.result().unwrap_err().is_cancelled());
    drop(waiting::<S>(&pool, None).kill_on_drop());
    assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
    assert_ne!(workers(&pool), before);
}

fn a_task_that_waits_for_its_reader_times_out<S: Processes>() {
    let pool = S::pool(1);
    let mut values = waiting::<S>(&pool, Some(Duration::from_millis(200)));
    let handle = pool.apply_async(|x: u64| x, 3);
    assert_eq!(handle.get(), Ok(3));
    assert_eq!(values.by_ref().map_while(Result::ok).count(), 4);
    let error = values.result().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::TimedOut, "{error}");
}

fn a_task_that_waits_for_its_reader_is_terminated<S: Processes>() {
    let pool = S::pool(1);
    let mut values = waiting::<S>(&pool, None);
    pool.terminate();
    pool.join().unwrap();
    // The last of them may not have been looked for.
    assert!(values.by_ref().map_while(Result::ok).count() <= 4);
    assert!(values.result().unwrap_err().is_cancelled());
}

fn a_task_that_waits_for_its_reader_has_a_deadline<S: Processes>() {
    let pool = S::pool(1);
    let call = pool.call(emit_unread).deadline(Duration::from_millis(300));
    let gate = Gate::new();
    let mut values = call.buffer(4).stream(gate.ticket());
    let error = values.by_ref().find_map(Result::err).unwrap();
    assert_eq!(error.kind(), TaskErrorKind::DeadlineExceeded, "{error}");
    assert!(values.next().is_none());
}

/// The thread that waits may be the one that would read.
fn join_waits_for_no_reader<S: Processes>() {
    let pool = S::pool(1);
    let mut first = pool.call(count).stream(1000);
    let mut second = pool.call(count).buffer(1).stream(500);
    assert_eq!(first.next(), Some(Ok(0)));
    pool.close();
    pool.join().unwrap();
    assert_eq!(all(&mut first), Vec::from_iter(1..1000));
    assert_eq!(all(&mut second), Vec::from_iter(0..500));
    assert_eq!(first.result(), Ok(1000));
}

fn a_value_that_is_too_large_ends_the_task<S: Processes>() {
    let task = |sizes: Vec<usize>, out: &Emitter<Vec<u8>>| {
        for size in sizes {
            out.emit(vec![1; size]).unwrap();
        }
    };
    let pool = S::builder().processes(1).max_result_bytes(10_000).build();
    // Each of them may have that.
    let mut values = pool.call(task).stream(vec![9_000, 9_000, 9_992, 9_993, 1]);
    for size in [9_000, 9_000, 9_992] {
        assert_eq!(values.next().unwrap().unwrap().len(), size);
    }
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("max_result_bytes"), "{error}");
    assert!(values.next().is_none());
    assert_eq!(pool.stats().workers_lost, 0);
}

/// One that waits for its reader keeps one worker, and no other.
fn other_tasks_run_beside<S: Processes>() {
    let pool = S::pool(2);
    let mut values = waiting::<S>(&pool, None);
    assert_eq!(pool.map(|x: u64| x + 1, 0..1000).unwrap().len(), 1000);
    let wanted = |_: u64, out: &Emitter<u64>| -> Result<(), Disconnected> { out.emit(7) };
    let mut beside = pool.call(wanted).stream(0);
    assert_eq!(beside.next(), Some(Ok(7)));
    assert_eq!(beside.result().unwrap(), Ok(()));
    assert_eq!(values.by_ref().take(100).count(), 100);
}

fn shared(number: u64) -> Broadcast<[u64]> {
    Broadcast::new(vec![number; 1000]).expect("there is memory")
}

/// A number, and for most of them memory.
type Numbered = (u64, Option<Broadcast<[u64]>>);

/// Emits shared memory of its own, inside of other values, among values that have none.
fn emit_shared(count: u64, out: &Emitter<Numbered>) -> Broadcast<[u64]> {
    for number in 0..count {
        out.emit((number, (number % 3 > 0).then(|| shared(number))))
            .unwrap();
    }
    shared(count)
}

fn assert_shared(values: &mut StreamHandle<Numbered, Broadcast<[u64]>>) {
    for (expected, value) in (0..).zip(values) {
        let (number, shared) = value.unwrap();
        assert_eq!((number, shared.is_some()), (expected, expected % 3 > 0));
        assert!(shared.is_none_or(|it| *it == [number; 1000]));
    }
}

fn a_value_may_be_shared<S: Subject>() {
    let pool = S::pool(1);
    for buffer in [1, 2, 40] {
        let mut values = pool.call(emit_shared).buffer(buffer).stream(30);
        assert_shared(&mut values);
        assert_eq!(*values.result().unwrap(), [30; 1000]);
    }
    // What was read stays, and what was not is given up.
    let mut values = pool.call(emit_shared).buffer(20).stream(10);
    let first: Vec<_> = values.by_ref().take(3).map(Result::unwrap).collect();
    drop(values);
    assert_eq!(*first[2].1.clone().unwrap(), [2; 1000]);
    let result = pool.call(emit_shared).stream(10).result();
    assert_eq!(*result.unwrap(), [10; 1000]);
}

/// They are read when the task has ended and the caller has let go of it.
fn a_value_may_have_what_came_with_the_argument<S: Subject>() {
    let task = |given: Broadcast<[u64]>, out: &Emitter<Broadcast<[u64]>>| {
        for _ in 0..3 {
            out.emit(given.clone()).unwrap();
        }
    };
    let pool = S::pool(1);
    let given = pool.broadcast(vec![5_u64; 1000]).unwrap();
    let mut values = pool.call(task).stream(given);
    // The pool has one worker, or the calling thread.
    assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
    for _ in 0..3 {
        assert_eq!(*values.next().unwrap().unwrap(), [5; 1000]);
    }
    assert!(values.next().is_none());
}

/// Emits files, alone and in a vector, with their numbers in them.
fn emit_files(count: usize, out: &Emitter<(usize, Vec<Fd>)>) -> Option<Fd> {
    for number in 0..count {
        let files = (0..number % 4).map(|at| file_of(&format!("{number}, {at}")));
        out.emit((number, files.collect())).unwrap();
    }
    Some(file_of("the result"))
}

fn a_value_may_have_descriptors<S: Subject>() {
    let pool = S::pool(1);
    for buffer in [1, 3, 100] {
        let mut values = pool.call(emit_files).buffer(buffer).stream(50);
        for expected in 0..50 {
            let (number, files) = values.next().unwrap().unwrap();
            assert_eq!((number, files.len()), (expected, expected % 4));
            for (at, file) in files.into_iter().enumerate() {
                assert_eq!(read(file), format!("{number}, {at}"));
            }
        }
        assert!(values.next().is_none());
        assert_eq!(values.result().unwrap().map(read).unwrap(), "the result");
    }
}

fn descriptors_that_nobody_reads_are_closed<S: Subject>() {
    /// Emits the writing ends of a pipe until nobody wants more.
    fn emit_ends(end: Fd, out: &Emitter<Fd>) {
        let end = end.into_owned();
        while out.emit(end.try_clone().unwrap().into()).is_ok() {}
    }
    let pool = S::pool(1);
    for read in [0, 2] {
        let (mut hear, say) = std::io::pipe().unwrap();
        let mut values = pool.call(emit_ends).buffer(8).stream(say.into());
        assert_eq!(values.by_ref().take(read).count(), read);
        drop(values);
        // It ends when all are closed.
        let end = std::io::Read::read(&mut hear, &mut [0]).unwrap();
        assert_eq!(end, 0);
    }
}

fn too_many_descriptors_in_a_value<S: Subject>() {
    let task = |(), out: &Emitter<Vec<Fd>>| {
        out.emit(vec![file_of("a few")]).unwrap();
        let _ = out.emit((0..129).map(|_| file_of("")).collect());
    };
    let pool = S::pool(1);
    let mut values = pool.call(task).stream(());
    assert_eq!(values.next().unwrap().unwrap().len(), 1);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("128 descriptors"), "{error}");
    assert!(values.next().is_none());
}

fn a_descriptor_in_a_value_goes_to_no_other_machine<S: Subject>() {
    let pool = S::pool(1);
    let mut values = pool.call(emit_files).stream(2);
    assert_eq!(values.next().unwrap().unwrap().0, 0);
    // Unless that machine is this very process, which may still have it.
    if let Err(error) = values.next().unwrap() {
        assert_eq!(error.kind(), TaskErrorKind::Decode, "{error}");
        assert!(error.to_string().contains("another machine"), "{error}");
    }
}

/// What was emitted whole is whole.
fn handles_outlive_a_crash<S: Processes>() {
    let task = |fate: Fate, out: &Emitter<(Fd, Broadcast<[u64]>)>| {
        for number in 0..5 {
            let text = format!("file {number}");
            out.emit((file_of(&text), shared(number))).unwrap();
        }
        strike(fate).unwrap();
    };
    let pool = S::quiet_pool(1);
    for fate in Fate::DEADLY {
        let mut values = pool.call(task).stream(fate);
        for number in 0..5 {
            let (file, shared) = values.next().unwrap().unwrap();
            assert_eq!(read(file), format!("file {number}"));
            assert_eq!(*shared, [number; 1000]);
        }
        let error = values.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
        assert!(values.next().is_none());
    }
}

/// Nobody else has it by then.
fn a_handle_of_the_argument_outlives_a_crash<S: Processes>() {
    let task = |given: Broadcast<[u64]>, out: &Emitter<Broadcast<[u64]>>| -> u8 {
        out.emit(given).unwrap();
        std::process::abort()
    };
    let pool = S::quiet_pool(1);
    let given = pool.broadcast(vec![5_u64; 1000]).unwrap();
    let mut values = pool.call(task).stream(given);
    // The task has ended.
    assert_eq!(pool.apply(|x: u64| x, 3), Ok(3));
    assert_eq!(*values.next().unwrap().unwrap(), [5; 1000]);
    let error = values.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::WorkerLost, "{error}");
}

/// More than a process may have descriptors, of which few are unread at a time.
fn many_shared_values_arrive<S: Processes>() {
    let task = |count: u64, out: &Emitter<(Broadcast<[u64]>, Fd)>| {
        for number in 0..count {
            out.emit((shared(number), file_of(""))).unwrap();
        }
    };
    let pool = S::pool(1);
    let mut values = pool.call(task).buffer(4).stream(3000);
    for number in 0..3000 {
        assert_eq!(*values.next().unwrap().unwrap().0, [number; 1000]);
    }
    assert!(values.next().is_none());
}
