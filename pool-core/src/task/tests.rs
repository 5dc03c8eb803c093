//! Chunks that leave their process: what an executor that somebody else writes relies on.

#![allow(clippy::disallowed_methods, reason = "tests sleep")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::chunk::Chunk;
use super::completion::Refused;
use super::encoded_chunk::EncodedChunk;
use super::executor::{Cancel, Executor};
use super::outcome::{Outcome, from_bytes, to_bytes};
use super::outcome_batch::OutcomeBatch;
use crate::api::handle::MeasuredHandle;
use crate::api::measured::Measured;
use crate::api::pool::Pool;
use crate::api::serial::SerialPool;
use crate::broadcast::{Broadcast, BroadcastContent};
use crate::error::build_error::JoinError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::stats::Stats;
use crate::process::worker_info::WorkerInfo;
use crate::task::call_id::CallId;
use crate::worker::cancel_flag::CancelFlag;

/// Keeps what is submitted, with all else as it is provided.
#[derive(Default)]
struct Kept(Mutex<Vec<Chunk>>);

impl Executor for Kept {
    fn submit(&self, chunk: Chunk) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.push(chunk);
    }

    fn cancel(&self, _call: CallId, _how: Cancel) -> bool {
        false
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn processes(&self) -> usize {
        1
    }

    fn close(&self) {}

    fn terminate(&self) {}

    fn join(&self, _deadline: Option<Instant>) -> Result<bool, JoinError> {
        Ok(true)
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// A pool of which the test is the workers.
struct TestPool {
    kept: Arc<Kept>,
    executor: Arc<dyn Executor>,
}

impl TestPool {
    fn new() -> Self {
        let kept = Arc::<Kept>::default();
        Self {
            executor: kept.clone(),
            kept,
        }
    }

    /// The only chunk.
    fn chunk(&self) -> Chunk {
        let mut chunks = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(chunks.len(), 1);
        chunks.remove(0)
    }
}

impl Pool for TestPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

fn half(x: u64) -> u64 {
    assert!(x.is_multiple_of(2), "{x} is odd");
    x / 2
}

fn results(handle: MeasuredHandle<Vec<Measured<u64>>>) -> Vec<Result<u64, TaskError>> {
    handle.get().into_iter().map(|it| it.outcome).collect()
}

/// Runs it as another machine would, which has nothing but bytes.
fn run(chunk: &EncodedChunk) -> Vec<(usize, Outcome)> {
    let arrived = EncodedChunk::from_bytes(&chunk.to_bytes()).expect("a chunk");
    let mut outcomes = Vec::new();
    arrived.run(&CancelFlag::new(), |index, outcome| {
        let outcome = Outcome::from_bytes(&outcome.to_bytes());
        outcomes.push((index, outcome.expect("an outcome")));
    });
    outcomes
}

#[test]
fn a_chunk_says_what_it_is() {
    let pool = TestPool::new();
    let call = pool.call(half).chunksize(10).retries(3);
    let _handle = call.timeout(Duration::from_secs(5)).map_async(0..7);
    let chunk = pool.chunk();
    assert_eq!((chunk.first_index(), chunk.count()), (0, 7));
    assert!(chunk.function().name().ends_with("tests::half"));
    let options = chunk.options();
    assert_eq!(options.timeout, Some(Duration::from_secs(5)));
    assert_eq!((options.retries, options.measured), (3, false));
    assert!(!chunk.is_abandoned() && !chunk.call().is_single());
    let (call, function) = (chunk.call(), chunk.function());
    let (head, tail) = chunk.split_at(3);
    assert_eq!((head.first_index(), head.count()), (0, 3));
    assert_eq!((tail.first_index(), tail.count()), (3, 4));
    assert_eq!((head.call(), tail.call()), (call, call));
    let (encoded, completion) = tail.into_parts();
    assert_eq!(encoded.function(), Some(function));
    assert_eq!((encoded.first_index(), encoded.count()), (3, 4));
    assert_eq!(completion.indices(), 3..7);
    assert_eq!(encoded.options(), options);
    let own = encoded.clone().with_retries(0).options();
    assert_eq!((own.retries, own.timeout), (0, options.timeout));
    assert_eq!(encoded.name(), None);
    let last = encoded.part(5..7);
    assert_eq!((last.first_index(), last.count()), (5, 2));
    let outcomes = run(&last);
    assert_eq!(outcomes.iter().map(|it| it.0).collect::<Vec<_>>(), [5, 6]);
    assert!(outcomes[0].1.error().is_some_and(TaskError::is_panic));
    assert_eq!(outcomes[1].1.bytes().expect("3"), 3_u64.to_le_bytes());
    head.finish(&TaskError::other(TaskErrorKind::Closed, "enough"));
}

/// To where it is to run, so that workers there are at work on this call and not on its function.
#[test]
fn a_call_keeps_its_name() {
    let pool = TestPool::new();
    let _handle = pool.call(half).name("halves").chunksize(10).map_async(0..7);
    let (encoded, _completion) = pool.chunk().into_parts();
    let arrived = EncodedChunk::from_bytes(&encoded.part(0..1).to_bytes()).expect("a chunk");
    assert_eq!(arrived.name(), Some("halves"));
    let other = TestPool::new();
    let _submitted = arrived.submit_to(other.executor(), |_, _| {});
    assert_eq!(other.chunk().call_name(), "halves");
}

/// Values and errors, one by one from the last to the first, and many at once.
#[test]
fn outcomes_come_in_any_order() {
    let pool = TestPool::new();
    let expected = SerialPool::new().try_map(half, 0..100);
    for at_once in [false, true] {
        let handle = pool.call(half).chunksize(100).measured().map_async(0..100);
        let (encoded, completion) = pool.chunk().into_parts();
        let mut outcomes = run(&encoded);
        if at_once {
            let later = outcomes.split_off(40);
            let only = |all: Vec<(usize, Outcome)>| all.into_iter().map(|it| it.1).collect();
            completion
                .complete_from(40, only(later))
                .expect("each is the first");
            assert_eq!(completion.pending(), std::slice::from_ref(&(0..40)));
            completion
                .complete_from(0, only(outcomes))
                .expect("each is the first");
        } else {
            for (index, outcome) in outcomes.into_iter().rev() {
                completion.complete(index, outcome).expect("the first");
            }
        }
        assert!(completion.pending().is_empty());
        drop(completion);
        let all = results(handle);
        for (index, (got, wanted)) in all.iter().zip(&expected).enumerate() {
            let key = |it: &Result<u64, TaskError>| match it {
                Ok(value) => Ok(*value),
                Err(error) => Err((error.kind(), error.index(), error.to_string())),
            };
            assert_eq!(key(got), key(wanted), "{index}");
        }
        assert_eq!(all.len(), 100);
    }
}

#[test]
fn a_second_outcome_is_refused() {
    let pool = TestPool::new();
    let handle = pool.call(half).chunksize(10).map_async([2, 4, 6, 8]);
    let (_, completion) = pool.chunk().into_parts();
    let value = |x: u64| Outcome::of_value(x.to_le_bytes().to_vec());
    completion.complete(1, value(2)).expect("the first");
    let refused = completion.complete(1, value(9)).expect_err("the second");
    assert_eq!((refused.index(), refused.count()), (1, 1));
    for elsewhere in [4, usize::MAX] {
        let refused = completion.complete(elsewhere, value(9));
        assert_eq!(refused.map_err(|it: Refused| it.index()), Err(elsewhere));
    }
    // Those beside it are delivered.
    let refused = completion.complete_from(0, vec![value(1), value(9), value(3), value(4)]);
    assert_eq!(refused.map_err(|it| (it.index(), it.count())), Err((1, 1)));
    let refused = completion.complete_from(2, vec![value(9), value(9), value(9)]);
    assert_eq!(refused.map_err(|it| (it.index(), it.count())), Err((2, 3)));
    assert_eq!(handle.get(), Ok(vec![1, 2, 3, 4]));
}

#[test]
fn what_is_dropped_fails() {
    let pool = TestPool::new();
    let handle = pool.call(half).chunksize(100).measured().map_async(0..100);
    let (encoded, completion) = pool.chunk().into_parts();
    completion
        .complete(70, run(&encoded.part(70..71)).remove(0).1)
        .expect("the first");
    assert_eq!(completion.pending(), [0..70, 71..100]);
    drop(completion);
    for (index, result) in results(handle).into_iter().enumerate() {
        match result {
            Ok(value) => assert_eq!((index, value), (70, 35)),
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.index()),
                    (TaskErrorKind::WorkerLost, Some(index))
                );
                assert!(error.to_string().contains("dropped"), "{error}");
            }
        }
    }
    let single = pool.apply_async(half, 2);
    drop(pool.chunk().into_parts());
    assert!(single.get().expect_err("dropped").is_worker_lost());
    let single = pool.apply_async(half, 2);
    let (_, completion) = pool.chunk().into_parts();
    completion.finish(&TaskError::other(TaskErrorKind::Launch, "no machine").with_machine("m1"));
    let error = single.get().expect_err("it was finished");
    assert_eq!(
        (error.kind(), error.machine()),
        (TaskErrorKind::Launch, Some("m1"))
    );
}

#[test]
fn what_was_measured_arrives() {
    let pool = TestPool::new();
    let slow = |x: u64| {
        std::thread::sleep(Duration::from_millis(5));
        x
    };
    let call = pool.call(slow).chunksize(10).measured();
    let handle = call.map_async(0..3);
    let (encoded, completion) = pool.chunk().into_parts();
    assert!(encoded.options().measured);
    let worker = WorkerInfo::new(1, 0, 77).with_machine("m1");
    for (index, outcome) in run(&encoded) {
        assert!(outcome.took() >= Duration::from_millis(5));
        // One without a word of how it ran.
        let outcome = match index {
            1 => Outcome::of_value(1_u64.to_le_bytes().to_vec()).with_losses(2),
            _ => outcome.with_worker(&worker),
        };
        completion.complete(index, outcome).expect("the first");
    }
    for (index, item) in handle.get().into_iter().enumerate() {
        assert_eq!(item.outcome, Ok(index as u64));
        let metrics = item.metrics;
        assert_eq!(metrics.argument_bytes, 8);
        if index == 1 {
            assert_eq!((metrics.attempt, metrics.run), (2, None));
        } else {
            assert_eq!((metrics.attempt, metrics.result_bytes), (1, 8));
            assert!(metrics.run >= Some(Duration::from_millis(5)), "{metrics:?}");
            assert_eq!(metrics.worker.as_ref(), Some(&worker));
        }
    }
}

/// A value that is brought goes into the argument, and what the task shares comes back.
#[test]
fn broadcasts_travel() {
    let pool = TestPool::new();
    let task = |(given, x): (Broadcast<[u64]>, usize)| {
        let new = Broadcast::new(vec![given[x] + 1; 1000]).expect("memory");
        (given, new)
    };
    let numbers = pool.broadcast(Vec::from_iter(0..1000_u64)).expect("memory");
    let items = [(numbers.clone(), 5), (numbers.clone(), 7)];
    let handle = pool.call(task).chunksize(10).map_async(items);
    let (encoded, completion) = pool.chunk().into_parts();
    let contents = encoded.contents();
    assert_eq!(contents.len(), 1);
    let mut arrived = EncodedChunk::from_bytes(&encoded.to_bytes()).expect("a chunk");
    assert_eq!(arrived.missing(), [contents[0].id()]);
    // Without it no item runs.
    for (_, outcome) in run(&arrived) {
        let error = outcome.error().expect("it is not there");
        assert_eq!(error.kind(), TaskErrorKind::Decode);
        assert!(error.to_string().contains("was not brought"), "{error}");
    }
    let content = BroadcastContent::new(contents[0].bytes()).expect("memory");
    assert!(arrived.provide(&content) && arrived.missing().is_empty());
    arrived.run(&CancelFlag::new(), |index, outcome| {
        let mut back = Outcome::from_bytes(&outcome.to_bytes()).expect("an outcome");
        let missing = completion.missing(&back);
        assert_eq!(missing.len(), 1, "the other one has come from here");
        let new = outcome.contents();
        let new = new
            .iter()
            .find(|it| it.id() == missing[0])
            .expect("it is sent with it");
        let new = BroadcastContent::new(new.bytes()).expect("memory");
        assert!(back.provide(&new) && completion.missing(&back).is_empty());
        completion.complete(index, back).expect("the first");
    });
    let results = handle.get().expect("both have values");
    for ((given, new), x) in results.iter().zip([5, 7]) {
        assert!(std::ptr::eq(&raw const **given, &raw const *numbers));
        assert_eq!(new[..], [x + 1; 1000]);
    }
}

/// A pool of the other machine runs it.
#[test]
fn a_chunk_runs_in_another_pool() {
    let pool = TestPool::new();
    let handle = pool
        .call(half)
        .chunksize(10)
        .measured()
        .map_async([2, 3, 4]);
    let (encoded, completion) = pool.chunk().into_parts();
    let serial = SerialPool::new();
    let submitted = encoded.submit_to(serial.executor(), move |index, outcome| {
        completion.complete(index, outcome).expect("the first");
    });
    submitted.cancel(Cancel::Kill);
    let all = handle.get();
    assert_eq!(all[0].outcome, Ok(1));
    assert!(all[1].outcome.as_ref().is_err_and(TaskError::is_panic));
    assert!(all.iter().all(|it| it.metrics.attempt == 1));
    // A panic of the receiver's is its own.
    let _handle = pool.apply_async(half, 2);
    let (encoded, _completion) = pool.chunk().into_parts();
    encoded.submit_to(serial.executor(), |_, _| panic!("in the test"));
}

/// What became of the items, from a pool of the other machine, after the way here.
fn batches(encoded: &EncodedChunk) -> Vec<OutcomeBatch> {
    let (sender, batches) = std::sync::mpsc::channel();
    encoded.batch_to(SerialPool::new().executor(), move |batch| {
        sender.send(batch).expect("it is received");
    });
    let arrived = batches.iter().map(|batch| {
        let bytes = to_bytes(&batch);
        from_bytes::<OutcomeBatch>(&bytes, "batch").expect("a batch")
    });
    arrived.collect()
}

#[test]
fn outcomes_travel_together() {
    let pool = TestPool::new();
    let expected = SerialPool::new().try_map(half, 0..100);
    let handle = pool.call(half).chunksize(100).measured().map_async(0..100);
    let (measured, completion) = pool.chunk().into_parts();
    let _handle = pool.call(half).chunksize(100).map_async(0..100);
    let (encoded, _completion) = pool.chunk().into_parts();
    let mut all = batches(&encoded);
    assert_eq!(all.len(), 1);
    let batch = all.remove(0).with_machine("m1");
    assert_eq!((batch.indices(), batch.errors().count()), (0..100, 50));
    assert!(batch.each().is_empty());
    // Nothing of it is lost to who wants them one by one.
    let apart = batch.clone().into_each();
    assert_eq!(apart.len(), 100);
    for (index, (at, outcome)) in apart.iter().enumerate() {
        assert_eq!(index, *at);
        match outcome.bytes() {
            Ok(bytes) => assert_eq!(bytes, (index as u64 / 2).to_le_bytes()),
            Err(error) => assert!(index % 2 == 1 && error.machine() == Some("m1")),
        }
    }
    // What is measured has more to say.
    let measured = batches(&measured);
    assert!(
        measured
            .iter()
            .all(|it| it.each().len() == it.indices().len() && it.errors().count() == 50)
    );
    completion.complete_batch(batch.clone()).expect("the first");
    let refused = completion.complete_batch(batch).expect_err("the second");
    assert_eq!((refused.index(), refused.count()), (0, 100));
    drop(completion);
    for (got, wanted) in results(handle).iter().zip(&expected) {
        let kind = |it: &Result<u64, TaskError>| it.as_ref().map_err(TaskError::kind).copied();
        assert_eq!(kind(got), kind(wanted));
    }
}

/// Of a batch of which some items have outcomes, the others get theirs.
#[test]
fn each_item_of_a_batch_has_one_outcome() {
    let pool = TestPool::new();
    let handle = pool
        .call(half)
        .chunksize(300)
        .map_async((0..300).map(|x| x * 2));
    let (encoded, completion) = pool.chunk().into_parts();
    let part = |indices| batches(&encoded.part(indices)).remove(0);
    completion.complete_batch(part(60..70)).expect("the first");
    completion
        .complete_batch(part(130..140))
        .expect("the first");
    assert_eq!(completion.pending(), [0..60, 70..130, 140..300]);
    let refused = completion
        .complete_batch(part(50..80))
        .expect_err("some have");
    assert_eq!((refused.index(), refused.count()), (60, 10));
    assert_eq!(completion.pending(), [0..50, 80..130, 140..300]);
    let whole = part(0..300);
    let refused = completion
        .complete_batch(whole.clone())
        .expect_err("some have");
    assert_eq!((refused.index(), refused.count()), (50, 40));
    completion.complete_batch(whole).expect_err("all have");
    drop(completion);
    assert_eq!(handle.get(), Ok(Vec::from_iter(0..300)));
    // Items that are not of the chunk.
    let _handle = pool.call(half).chunksize(10).map_async([0; 10]);
    let (_, completion) = pool.chunk().into_parts();
    let refused = completion
        .complete_batch(part(5..15))
        .expect_err("there are ten");
    assert_eq!((refused.index(), refused.count()), (10, 5));
    assert_eq!(completion.pending(), std::slice::from_ref(&(0..5)));
}

#[test]
fn items_that_fail_together_say_it_once() {
    let pool = TestPool::new();
    let handle = pool.call(half).chunksize(100).measured().map_async(0..100);
    let (_, completion) = pool.chunk().into_parts();
    let error = TaskError::worker_lost("is gone").with_stderr("word ".repeat(100));
    let one = to_bytes(&error).len();
    let bytes = to_bytes(&OutcomeBatch::failed(0..100, error));
    assert!(bytes.len() < one + 500);
    let batch = from_bytes(&bytes, "batch").expect("a batch");
    completion.complete_batch(batch).expect("the first");
    for (index, result) in results(handle).into_iter().enumerate() {
        let error = result.expect_err("it was lost");
        assert!(error.is_worker_lost() && error.index() == Some(index));
    }
}

/// Handles in results are found, and what they mean is brought.
#[test]
fn broadcasts_travel_in_batches() {
    let pool = TestPool::new();
    let task = |x: u64| (x == 3).then(|| Broadcast::new(vec![x; 1000]).expect("memory"));
    let handle = pool.call(task).chunksize(10).map_async(0..5);
    let (encoded, completion) = pool.chunk().into_parts();
    let sent = Arc::new(Mutex::new(None));
    let there = sent.clone();
    encoded.batch_to(SerialPool::new().executor(), move |batch| {
        *there.lock().expect("no panic") = Some(batch);
    });
    let sent = sent.lock().expect("no panic").take().expect("it ran");
    let mut arrived: OutcomeBatch = from_bytes(&to_bytes(&sent), "batch").expect("a batch");
    let contents = sent.contents();
    assert_eq!(completion.missing_in(&arrived), [contents[0].id()]);
    let content = BroadcastContent::new(contents[0].bytes()).expect("memory");
    assert!(arrived.provide(&content) && completion.missing_in(&arrived).is_empty());
    completion.complete_batch(arrived).expect("the first");
    let results = handle.get().expect("values");
    assert_eq!(results[3].as_ref().expect("one")[..], [3; 1000]);
}

/// A handle that no result has keeps nothing from travelling together.
#[test]
fn what_no_result_has_is_not_looked_for_again() {
    let pool = TestPool::new();
    let words = pool.broadcast("words".to_owned()).expect("memory");
    let task = |(words, x): (Broadcast<str>, usize)| words.len() + x;
    let items = (0..10).map(|x| (words.clone(), x));
    let _handle = pool.call(task).chunksize(10).map_async(items);
    let (encoded, _completion) = pool.chunk().into_parts();
    assert!(batches(&encoded)[0].each().is_empty());
}

#[test]
fn forged_batches_are_refused() {
    let pool = TestPool::new();
    let _handle = pool.call(half).chunksize(10).map_async(0..4);
    let (encoded, _completion) = pool.chunk().into_parts();
    let good = to_bytes(&batches(&encoded)[0]);
    let refused = |bytes: &[u8]| {
        let error = from_bytes::<OutcomeBatch>(bytes, "batch").expect_err("no batch");
        assert_eq!(error.kind(), TaskErrorKind::Decode);
    };
    for end in 0..good.len() {
        refused(&good[..end]);
    }
    for count in [0_u32, 3, 5, u32::MAX] {
        let mut forged = good.clone();
        forged[8..12].copy_from_slice(&count.to_le_bytes());
        refused(&forged);
    }
    let mut forged = good.clone();
    forged[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&forged);
}

#[test]
fn a_flag_ends_a_run() {
    let pool = TestPool::new();
    let flag = CancelFlag::new();
    let _handle = pool.call(half).chunksize(10).map_async([2, 4, 6, 8]);
    let (encoded, _completion) = pool.chunk().into_parts();
    let mut outcomes = Vec::new();
    encoded.run(&flag, |index, outcome| {
        if index == 1 {
            flag.set();
        }
        outcomes.push(outcome.error().map(TaskError::kind));
    });
    let cancelled = Some(TaskErrorKind::Cancelled);
    assert_eq!(outcomes, [None, None, cancelled, cancelled]);
    let _handle = pool.apply_async(|()| crate::worker::is_cancelled(), ());
    let (encoded, _completion) = pool.chunk().into_parts();
    let seen = |flag: &CancelFlag| {
        let mut seen = Vec::new();
        encoded.run(flag, |_, outcome| {
            seen.push(outcome.bytes().map_err(TaskError::kind))
        });
        seen
    };
    assert_eq!(seen(&CancelFlag::new()), [Ok(vec![0])]);
    assert_eq!(seen(&flag), [Err(TaskErrorKind::Cancelled)]);
}

#[test]
fn a_receiver_that_panics_is_called_no_more() {
    let pool = TestPool::new();
    let _handle = pool.call(half).chunksize(10).map_async([2, 4, 6]);
    let (encoded, _completion) = pool.chunk().into_parts();
    let mut calls = 0;
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        encoded.run(&CancelFlag::new(), |_, _| {
            calls += 1;
            assert!(calls < 2, "in the test");
        });
    }));
    assert!(panic.is_err());
    assert_eq!(calls, 2);
}

/// Other functions, other builds, other numbers of items: each is an error of every item, or no
/// chunk at all.
#[test]
fn forged_chunks_are_refused() {
    let pool = TestPool::new();
    let _handle = pool.call(half).chunksize(10).map_async([2, 4]);
    let (encoded, _completion) = pool.chunk().into_parts();
    let good = encoded.to_bytes();
    let number = encoded.function().expect("its own").number().to_le_bytes();
    let at = good
        .windows(8)
        .position(|it| it == number)
        .expect("it is there");
    assert_eq!(at, 16, "behind the build");
    for (place, what) in [(0, "build"), (at, "function"), (at + 3, "function")] {
        let mut forged = good.clone();
        forged[place] ^= 0x15;
        let chunk = EncodedChunk::from_bytes(&forged).expect("it is well-formed");
        assert_eq!(chunk.function(), None);
        let outcomes = run(&chunk);
        assert_eq!(outcomes.len(), 2);
        for (_, outcome) in outcomes {
            let error = outcome.error().expect("it cannot run");
            assert_eq!(error.kind(), TaskErrorKind::Invalid);
            assert!(error.to_string().contains(what), "{error}");
        }
    }
    // The index of the first, and the count.
    let count = at + 16;
    for other in [0_u32, 1, 3, u32::MAX] {
        let mut forged = good.clone();
        forged[count..count + 4].copy_from_slice(&other.to_le_bytes());
        let error = EncodedChunk::from_bytes(&forged).expect_err("it has two");
        assert_eq!(error.kind(), TaskErrorKind::Decode);
    }
    let mut forged = good.clone();
    forged[at + 8..at + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    EncodedChunk::from_bytes(&forged).expect_err("there are no such indices");
    for end in 0..good.len() {
        EncodedChunk::from_bytes(&good[..end]).expect_err("it is cut short");
    }
}

/// The bytes of a chunk with everything in it.
fn rich() -> Vec<u8> {
    let pool = TestPool::new();
    let words = pool.broadcast("words").expect("memory");
    let task = |(words, x): (Broadcast<str>, Vec<String>)| (words.len(), x);
    let items = [(words.clone(), vec!["a".to_owned()]), (words, Vec::new())];
    let call = pool
        .call(task)
        .chunksize(10)
        .timeout(Duration::from_secs(1));
    let _handle = call.measured().map_async(items);
    let (encoded, _completion) = pool.chunk().into_parts();
    encoded.to_bytes()
}

/// The inputs that the fuzz target begins with: to be written anew when the format changes, with
/// `KEEP_CORPUS=1`.
#[test]
fn the_corpus_has_what_travels() {
    let pool = TestPool::new();
    let values: Vec<Vec<(u8, Option<String>)>> = vec![
        Vec::new(),
        vec![(1, None), (2, Some("two".to_owned()))],
        vec![(7, None); 3],
    ];
    let task = |value: Vec<(u8, Option<String>)>| {
        assert!(value.len() != 3, "as it may");
        value
    };
    let call = pool.call(task).chunksize(10).retries(1);
    let call = call.timeout(Duration::from_secs(1)).measured();
    let _handle = call.map_async(values);
    let (encoded, _completion) = pool.chunk().into_parts();
    // Without the build and the function.
    let mut inputs = vec![encoded.to_bytes().split_off(24), rich().split_off(24)];
    let worker = WorkerInfo::new(1, 0, 77).with_machine("m1");
    for (_, outcome) in run(&encoded) {
        inputs.push(outcome.with_worker(&worker).with_losses(1).to_bytes());
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/chunk");
    let is_kept = std::env::var_os("KEEP_CORPUS").is_some();
    for (number, input) in inputs.iter().enumerate() {
        super::fuzzing::chunk(input);
        if is_kept {
            let path = format!("{folder}/{number:02}");
            std::fs::write(path, input).expect("the folder is there");
        }
    }
}

proptest! {
    /// What is kept for the fuzz target, with a few changes: most get further than any bytes do.
    #[test]
    fn what_travels_may_change_on_its_way(
        input in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/chunk");
        let mut bytes = std::fs::read(format!("{folder}/{input:02}")).expect("it is kept");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        super::fuzzing::chunk(&bytes);
    }

    #[test]
    fn no_bytes_are_too_strange_for_a_chunk(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(chunk) = EncodedChunk::from_bytes(&bytes) {
            run(&chunk);
        }
        let _ = Outcome::from_bytes(&bytes);
    }

    /// Whatever is changed in a batch, each of its items has one outcome.
    #[test]
    fn a_batch_that_was_changed_harms_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let pool = TestPool::new();
        let handle = pool.call(half).chunksize(10).map_async(0..10);
        let (encoded, completion) = pool.chunk().into_parts();
        let mut bytes = to_bytes(&batches(&encoded)[0]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(batch) = from_bytes::<OutcomeBatch>(&bytes, "batch") {
            prop_assert_eq!(batch.clone().into_each().len(), batch.indices().len());
            let _ = completion.complete_batch(batch);
        }
        drop(completion);
        prop_assert!(handle.is_ready());
    }

    /// Whatever is changed in a chunk, each item has one outcome.
    #[test]
    fn a_chunk_that_was_changed_harms_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut bytes = rich();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut chunk) = EncodedChunk::from_bytes(&bytes) {
            if chunk.options().delay > Duration::from_millis(1) {
                // It may say that it begins in a thousand years, as its function may take that
                // long.
                return Ok(());
            }
            chunk.provide(&BroadcastContent::new(b"words").expect("memory"));
            let mut outcomes = 0;
            chunk.run(&CancelFlag::new(), |index, outcome| {
                assert_eq!(index, chunk.first_index() + outcomes);
                outcomes += 1;
                Outcome::from_bytes(&outcome.to_bytes()).expect("an outcome");
            });
            prop_assert_eq!(outcomes, chunk.count());
        }
    }
}
