//! Handles of tasks that emit values.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;

use super::decode::decode_owned;
use super::handle::{Handle, Pending, ResultCell, SingleResult, TaskHandle};
use crate::error::task_error::TaskError;
use crate::task::call_id::CallId;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::emissions::{Emissions, Next};
use crate::task::executor::{Cancel, Executor};
use crate::value::portable::Portable;

/// A task that emits values while it runs: what [`Call::stream`](crate::Call::stream) returns.
///
/// It is an iterator over the values, each of them there as soon as the task has emitted it. When
/// the task has ended, [`result`](Self::result) has what the function returned. In an `async`
/// function, turn it into a stream with
#[cfg_attr(feature = "stream", doc = "[`into_stream`](Self::into_stream).")]
#[cfg_attr(not(feature = "stream"), doc = "`into_stream` (feature `stream`).")]
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Emitter, Pool, SerialPool, StreamHandle};
///
/// /// Emits the words of a text, and says how many lines that has.
/// fn words(text: String, out: &Emitter<String>) -> usize {
///     for word in text.split_whitespace() {
///         if out.emit(word.to_owned()).is_err() {
///             break; // Nobody wants more.
///         }
///     }
///     text.lines().count()
/// }
///
/// let pool = SerialPool::new();
/// let mut values: StreamHandle<String, usize> = pool.call(words).stream("one two\nthree".into());
/// for word in &mut values {
///     println!("{}", word?);
/// }
/// assert_eq!(values.result()?, 2);
/// # Ok::<(), procpool::TaskError>(())
/// ```
///
/// # Errors
/// A task that fails gives the values that it had emitted, then its error, then nothing more; and
/// `result` has the error too. That holds for a crash as well: what was emitted before it arrives.
/// (A value that was emitted and cannot be decoded is an error of its own, and others follow.)
///
/// # The end
/// Dropping it cancels the task, as dropping an [`Imap`](crate::Imap) does: if the task runs, it is
/// asked to stop, and whatever it emits from then on is refused
/// ([`Disconnected`](crate::Disconnected)). [`kill`](Self::kill) ends it at once.
///
/// While nobody reads, the task waits when it has emitted as many values as
/// [`buffer`](crate::Call::buffer) says, and keeps its worker. So read the handle, or drop it.
/// [`Pool::join`](crate::Pool::join) waits for tasks and not for readers: from then on the task
/// does not wait any more, and its values stay in memory until they are read.
#[must_use = "the task waits until its values are read; `drop` it to end the task"]
pub struct StreamHandle<Y, R> {
    values: Arc<Emissions>,
    /// `None`: it was given away.
    outcome: Option<Pending<SingleResult>>,
    /// The error of the task is still to be given.
    owes_error: bool,
    types: PhantomData<fn() -> (Y, R)>,
}

/// Where a task's outcome goes that emits values: behind these.
pub(crate) struct StreamSink {
    pub(crate) values: Arc<Emissions>,
    pub(crate) outcome: Arc<SingleResult>,
}

impl CompletionSink for StreamSink {
    fn call(&self) -> CallId {
        self.outcome.call()
    }

    fn complete(&self, part: ChunkOutcome) {
        if part.count == 0 {
            return self.values.wake();
        }
        self.outcome.complete(part);
        self.values.end();
    }

    fn is_abandoned(&self) -> bool {
        self.outcome.is_abandoned()
    }
}

impl<Y, R> StreamHandle<Y, R> {
    /// That of a task whose outcome arrives there.
    pub(crate) fn new(
        values: Arc<Emissions>,
        outcome: Arc<SingleResult>,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let mut outcome = Pending::new(outcome, executor);
        outcome.end_on_drop(Some(Cancel::Cooperative));
        Self {
            values,
            outcome: Some(outcome),
            owes_error: true,
            types: PhantomData,
        }
    }

    /// Ends the task early. If it has not begun, it is not run. If it runs, it is asked:
    /// [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to it, and
    /// [`emit`](crate::Emitter::emit) fails. Either way it ends as `Cancelled`, behind the values
    /// that are there.
    pub fn cancel(&self) {
        self.end_by(Cancel::Cooperative);
    }

    /// Ends the task now: it is killed with its worker, and ends as `Cancelled`, behind the values
    /// that are there.
    pub fn kill(&self) {
        self.end_by(Cancel::Kill);
    }

    fn end_by(&self, how: Cancel) {
        let Some(outcome) = self.outcome.as_ref().filter(|it| !it.is_foreign()) else {
            return;
        };
        outcome.cancel(how);
        self.values.disconnect();
        if outcome.is_ready() {
            self.values.end();
        }
    }

    /// When the task has ended, `callback` gets how many have failed, of one.
    pub(crate) fn on_end(&self, counts_errors: bool, callback: impl FnOnce(u64) + Send + 'static) {
        if let Some(outcome) = &self.outcome {
            outcome.on_complete(move |it| callback(SingleResult::failures(&it, counts_errors)));
        }
    }

    /// The same handle, which [kills](Self::kill) the task when it is dropped before that has
    /// ended, instead of asking it.
    pub fn kill_on_drop(mut self) -> Self {
        if let Some(outcome) = &mut self.outcome {
            outcome.end_on_drop(Some(Cancel::Kill));
        }
        self
    }

    /// Gives up the values that were not read, and those that are still to come, and gives the
    /// handle of the result: to wait for it for some time, or to await it. The task runs on.
    pub fn into_result(mut self) -> TaskHandle<R> {
        let mut outcome = self.outcome.take().expect("it is given away once");
        if !outcome.is_foreign() {
            self.values.discard();
            self.values.forget_waker();
        }
        outcome.end_on_drop(None);
        Handle::of(outcome)
    }
}

impl<Y, R> StreamHandle<Y, R> {
    /// Whether [`next_ready`](Self::next_ready) says what comes next. If not, the waker is woken
    /// when it does.
    pub(crate) fn poll(&self, waker: Option<&Waker>) -> bool {
        let is_foreign = self.outcome.as_ref().is_none_or(Pending::is_foreign);
        is_foreign || self.values.poll(waker)
    }
}

impl<Y: Portable, R: Portable> StreamHandle<Y, R> {
    /// Waits for the end of the task, and gives what the function returned. Values that were not
    /// read are given up, and the task is not cancelled.
    ///
    /// # Errors
    /// When the task has failed: also with the error that the iterator gave.
    pub fn result(self) -> Result<R, TaskError> {
        self.into_result().get()
    }

    /// The next value that is there, or the error of the task. `None`: all were given.
    pub(crate) fn next_ready(&mut self) -> Option<Result<Y, TaskError>> {
        let outcome = self.outcome.as_ref()?;
        if !outcome.is_foreign() {
            match self.values.next() {
                Next::Value(value) => return Some(value.and_then(decode_owned)),
                Next::Nothing => return None,
                Next::End => {}
            }
        }
        let error = outcome.outcome().and_then(Result::err)?;
        std::mem::take(&mut self.owes_error).then_some(Err(error))
    }
}

impl<Y: Portable, R: Portable> Iterator for StreamHandle<Y, R> {
    type Item = Result<Y, TaskError>;

    /// Waits for the next value. The wait ends with the task at the latest.
    fn next(&mut self) -> Option<Self::Item> {
        if !self.poll(None)
            && let Some(outcome) = &self.outcome
        {
            outcome.wait_for(&mut |waker| self.poll(waker));
        }
        self.next_ready()
    }
}

impl<Y: Portable, R: Portable> FusedIterator for StreamHandle<Y, R> {}

impl<Y, R> Drop for StreamHandle<Y, R> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take()
            && !outcome.is_foreign()
        {
            // This cancels the task, which is not to emit more meanwhile.
            drop(outcome);
            self.values.disconnect();
            self.values.discard();
            self.values.forget_waker();
        }
    }
}

impl<Y, R> fmt::Debug for StreamHandle<Y, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<StreamHandle<std::rc::Rc<()>, std::rc::Rc<()>>>();
};
