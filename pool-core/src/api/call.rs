//! Calls with options, and the one implementation of every kind of call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::{
    AllOrFirst, Collector, MapHandle, Pending, SingleResult, TaskHandle, decode_all,
};
use super::imap::{Imap, ImapLocal};
use super::input::feed::{CallSite, InOrder, InputFeeder, Source};
use super::input::feeder::Fed;
use super::measured::MeasuredCall;
use super::progress::Progress;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::shm::protocol;
use crate::task::chunk::{ChunkOutcome, CompletionSink};
use crate::task::chunker::guided;
use crate::task::encode::{Limit, Stop, encode_one};
use crate::task::executor::Executor;
use crate::task::options::{Options, ValidatedOptions};
use crate::worker::function::{FunctionId, Stateless};

/// A call with options: what [`Pool::call`](crate::Pool::call) returns. Set the options, then
/// call one of the methods that a pool itself has.
///
/// ```
/// # use procpool_core as procpool;
/// use std::time::Duration;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let lengths = pool
///     .call(|line: String| line.len())
///     .timeout(Duration::from_secs(5))
///     .retries(1)
///     .chunksize(100)
///     .map(["a".to_owned(), "bc".to_owned()]);
/// assert_eq!(lengths.unwrap(), [1, 2]);
/// ```
///
/// An option that makes no sense, such as a chunk size of zero, makes the call fail with an
/// error of kind `Invalid`.
#[must_use = "a call does nothing until one of `apply`, `map`, ... is called"]
pub struct Call<F> {
    executor: Arc<dyn Executor>,
    options: Options,
    pub(crate) progress: Progress,
    function: F,
}

impl<F> Call<F> {
    pub(crate) fn new(executor: Arc<dyn Executor>, function: F) -> Self {
        Self {
            executor,
            options: Options::default(),
            progress: Progress::default(),
            function,
        }
    }

    /// How long one item may run, from its own beginning. One that takes longer is killed with its
    /// worker, and ends as `TimedOut`; other items are not affected. Without it, there is no limit.
    ///
    /// The outcome comes when the worker is dead, or 100 ms after it was killed: a process that is
    /// being debugged, frozen, or in a system call that cannot be interrupted dies later. Its kill
    /// is pending then, and it runs nothing more of the task; only that system call may still have
    /// its effect. [`Stats::workers_terminating`](crate::Stats::workers_terminating) counts such.
    ///
    /// Time in which the whole program was stopped, or its machine frozen, is not held against an
    /// item: one that is over by the clock then gets as much time again as the deadline was noticed
    /// late, but no more than `timeout`.
    ///
    /// A pool without processes of its own ([`SerialPool`](crate::SerialPool)) cannot keep it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How often an item is run again whose worker died under it, or which ran out of time.
    /// Without it, never: the item may have had effects. It may run again while its last worker,
    /// which runs nothing any more, is not gone: see [`timeout`](Self::timeout).
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// How many items travel together to one worker. Without it, that follows from how long
    /// items are seen to take.
    pub fn chunksize(mut self, items: usize) -> Self {
        self.options.chunksize = Some(items);
        self
    }

    /// How many items at most `imap` and `imap_unordered` have taken from their input beyond
    /// those whose result they have given. Without it, enough to keep every worker at work.
    /// A result counts as given when the next one is asked for.
    pub fn buffer(mut self, items: usize) -> Self {
        self.options.buffer = Some(items);
        self
    }

    /// Lets each result come with a [`TaskMetrics`](crate::TaskMetrics): how long the item waited
    /// and ran, what it took in processor time and memory, which worker had it. To be called behind
    /// all options.
    ///
    /// To measure an item costs a microsecond or two; calls without metrics do not pay for it.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let done = pool.call(|x: u64| x * x).measured().apply(7);
    /// assert_eq!(done.outcome.unwrap(), 49);
    /// assert_eq!(done.metrics.attempt, 1);
    /// println!("{}", done.metrics);
    /// ```
    pub fn measured(mut self) -> MeasuredCall<F> {
        self.options.receipts = true;
        MeasuredCall::new(self)
    }

    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// See [`Pool::apply`](crate::Pool::apply).
    ///
    /// # Errors
    /// When the task fails.
    pub fn apply<A, R>(self, argument: A) -> Result<R, TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let progress = self.progress.clone();
        let result = self.submit(argument, true).get();
        progress.add(1, result.is_err().into());
        result
    }

    /// See [`Pool::apply_async`](crate::Pool::apply_async).
    pub fn apply_async<A, R>(self, argument: A) -> TaskHandle<R>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let progress = self.progress.clone();
        let handle = self.submit(argument, false);
        if progress.is_shown() {
            handle.on_end(move |outcome| progress.add(1, outcome.is_err().into()));
        }
        handle
    }

    fn submit<A, R>(self, argument: A, attended: bool) -> TaskHandle<R>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let cell = Arc::new(SingleResult::default());
        let prepared = self
            .site::<A, R>()
            .and_then(|site| Ok((site, encode_one(argument)?)));
        match prepared {
            Ok((site, (items, attachments))) => {
                let mut chunk = site.chunk(0, 1, items, attended, cell.clone());
                chunk.attach(attachments);
                self.executor.submit(chunk);
            }
            Err(error) => cell.complete(ChunkOutcome::failed(0, 1, error)),
        }
        TaskHandle::new(Pending::new(cell, self.executor))
    }

    /// See [`Pool::map`](crate::Pool::map).
    ///
    /// # Errors
    /// When an item fails: the error of the one with the lowest index.
    ///
    /// # Panics
    /// When the iterator panics.
    pub fn map<I, R>(self, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let items = items.into_iter();
        let mut all = AllOrFirst::with_capacity(items.size_hint().0);
        self.for_each::<_, R>(items, |piece| decode_all(&piece, &mut all))?;
        all.into_result()
    }

    /// See [`Pool::try_map`](crate::Pool::try_map).
    ///
    /// # Panics
    /// When the iterator panics.
    pub fn try_map<I, R>(self, items: I) -> Vec<Result<R, TaskError>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let items = items.into_iter();
        let mut outcomes = Vec::with_capacity(reserve(&items));
        if let Err(error) = self.check::<I::Item, R>() {
            // Nothing was run; each item fails for the same reason.
            return items
                .enumerate()
                .map(|(index, _)| Err(error.clone().at_index(index)))
                .collect();
        }
        let ended = self.for_each::<_, R>(items, |piece| decode_all(&piece, &mut outcomes));
        outcomes.extend(ended.err().map(Err));
        outcomes
    }

    /// Runs all items and gives their outcomes, in order, to `receive`.
    pub(crate) fn for_each<I, R>(
        self,
        items: I,
        mut receive: impl FnMut(Arc<ChunkOutcome>),
    ) -> Result<(), TaskError>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: Iterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let site = self.site::<I::Item, R>()?;
        let feed = InputFeeder::new(self.executor, site, items, self.progress);
        let mut feed = feed.eager(true);
        let mut in_order = InOrder::default();
        loop {
            let pieces = feed.next_pieces();
            if pieces.is_empty() {
                break;
            }
            for piece in pieces {
                in_order.push(piece);
            }
            while let Some(piece) = in_order.pop() {
                feed.give(piece.count as usize);
                receive(piece);
            }
        }
        feed.rethrow();
        // An input may fork, and return in both.
        feed.error().map_or(Ok(()), Err)
    }

    /// See [`Pool::map_async`](crate::Pool::map_async).
    pub fn map_async<I, R>(self, items: I) -> MapHandle<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        MapHandle::new(self.submit_map::<_, R>(items))
    }

    pub(crate) fn submit_map<I, R>(self, items: I) -> Pending<Collector>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let mut collector = Collector::default();
        if self.progress.is_shown() {
            collector.watch(self.executor.clone(), self.progress.clone());
        }
        let collector = Arc::new(collector);
        match self.site::<I::Item, R>() {
            Ok(site) => {
                self.submit_all(&site, items.into_iter(), &collector);
            }
            Err(error) => {
                collector.expect(1);
                collector.complete(ChunkOutcome::failed(0, 1, error));
            }
        }
        Pending::new(collector, self.executor)
    }

    fn submit_all<A, I>(&self, site: &CallSite, mut input: I, collector: &Arc<Collector>)
    where
        A: Serialize + 'static,
        I: Iterator<Item = A>,
    {
        // All is encoded before anything is sent, so that an input that panics has submitted
        // nothing.
        let mut items = site.items();
        let mut failed = Vec::new();
        loop {
            match items.extend(&mut input, Limit::NONE) {
                Stop::Full | Stop::Wanted | Stop::Exhausted => break,
                // The item has an index, but no bytes.
                Stop::Failed(error) => failed.push((items.count + failed.len(), error)),
                Stop::Panicked(panic) => std::panic::resume_unwind(panic),
            }
        }
        let total = items.count + failed.len();
        collector.expect(total);
        let workers = self.executor.processes();
        let mut rest = &items.bytes[..];
        let mut next = 0;
        let mut sent = 0;
        for (end, error) in failed
            .into_iter()
            .map(|(at, error)| (at, Some(error)))
            .chain([(total, None)])
        {
            while next < end {
                let size = guided(total - next, workers, site.options.chunksize) as usize;
                let count = size.min(end - next);
                let (chunk, after) = protocol::split_items(rest, count);
                rest = after;
                let sink = collector.clone();
                let mut chunk = site.chunk(next, count as u32, chunk.into(), false, sink);
                chunk.attach(items.attachments.clone());
                chunk.note_encoding(items.times.get(sent..sent + count).unwrap_or_default());
                self.executor.submit(chunk);
                next += count;
                sent += count;
            }
            if let Some(error) = error {
                collector.complete(ChunkOutcome::failed(next, 1, error));
                next += 1;
            }
        }
    }

    /// See [`Pool::imap`](crate::Pool::imap).
    pub fn imap<I, R>(self, items: I) -> Imap<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        Imap::new(self.source::<I, R>(items), true)
    }

    /// See [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    pub fn imap_unordered<I, R>(self, items: I) -> Imap<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        Imap::new(self.source::<I, R>(items), false)
    }

    /// See [`Pool::imap_local`](crate::Pool::imap_local).
    pub fn imap_local<I, R>(self, items: I) -> ImapLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapLocal::new(self.feed::<I, R>(items), true)
    }

    /// See [`Pool::imap_unordered_local`](crate::Pool::imap_unordered_local).
    pub fn imap_unordered_local<I, R>(self, items: I) -> ImapLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapLocal::new(self.feed::<I, R>(items), false)
    }

    /// What gives a lazy map its outcomes.
    pub(crate) fn source<I, R>(self, items: I) -> Result<Box<dyn Source + Send>, TaskError>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        if self.executor.runs_in_caller() {
            return Ok(Box::new(self.feed::<I, R>(items)?));
        }
        let site = self.site::<I::Item, R>()?;
        let fed = Fed::new(self.executor, site, items.into_iter(), self.progress);
        Ok(Box::new(fed))
    }

    /// The same for an input that is read by the caller.
    pub(crate) fn feed<I, R>(self, items: I) -> Result<InputFeeder<I::IntoIter>, TaskError>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let site = self.site::<I::Item, R>()?;
        let is_one_by_one = self.executor.runs_in_caller();
        let feed = InputFeeder::new(self.executor, site, items.into_iter(), self.progress);
        Ok(if is_one_by_one {
            feed.one_by_one()
        } else {
            feed
        })
    }

    /// What the chunks of this call have in common.
    pub(crate) fn site<A, R>(&self) -> Result<CallSite, TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let (entry, options) = self.check::<A, R>()?;
        Ok(CallSite {
            entry,
            options,
            origin: self.executor.current_span(),
        })
    }

    /// Whether the call can be made.
    pub(crate) fn check<A, R>(&self) -> Result<(FunctionId, ValidatedOptions), TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        if self.executor.is_foreign() {
            return Err(TaskError::of_fork());
        }
        let entry = FunctionId::of::<F, A, R>(&self.function)
            .map_err(|error| TaskError::new(TaskErrorKind::Invalid, error.to_string()))?;
        Ok((entry, self.options.check()?))
    }
}

/// How many results to make room for; an iterator may claim anything.
pub(crate) fn reserve<I: Iterator>(items: &I) -> usize {
    items.size_hint().0.min(1 << 20)
}

impl<F> fmt::Debug for Call<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
