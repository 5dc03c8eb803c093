//! Calls with options, and the one implementation of every kind of call.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::Bytes;
use crate::call::{Piece, Sink, TaskId};
use crate::chunker::guided;
use crate::codec;
use crate::entry::Entry;
use crate::error::{TaskError, TaskErrorKind};
use crate::executor::Executor;
use crate::feed::{CallSite, Feed, InOrder, encode_item};
use crate::handle::{Collector, MapHandle, Pending, TaskCell, TaskHandle, decode_all};
use crate::imap::Imap;
use crate::options::Options;
use crate::protocol::LARGE_BYTES;

/// A call with options: what [`Pool::call`](crate::Pool::call) returns. Set the options, then
/// call one of the methods that a pool itself has.
///
/// ```
/// use std::time::Duration;
/// use pool_core::{Pool, SerialPool};
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
pub struct CallWith<F> {
    executor: Arc<dyn Executor>,
    options: Options,
    function: PhantomData<fn() -> F>,
}

impl<F> CallWith<F> {
    pub(crate) fn new(executor: Arc<dyn Executor>, _function: F) -> Self {
        Self {
            executor,
            options: Options::default(),
            function: PhantomData,
        }
    }

    /// How long one item may run, from its own beginning. One that takes longer is killed with
    /// its worker, and ends as `TimedOut`; other items are not affected. Without it, for ever.
    ///
    /// A pool without processes of its own ([`SerialPool`](crate::SerialPool)) cannot keep it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How often an item is run again whose worker died under it, or which ran out of time.
    /// Without it, never: the item may have had effects.
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
    pub fn buffer(mut self, items: usize) -> Self {
        self.options.buffer = Some(items);
        self
    }

    /// See [`Pool::apply`](crate::Pool::apply).
    ///
    /// # Errors
    /// When the task fails.
    pub fn apply<A, R>(self, argument: A) -> Result<R, TaskError>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.submit(argument, true).get()
    }

    /// See [`Pool::apply_async`](crate::Pool::apply_async).
    pub fn apply_async<A, R>(self, argument: A) -> TaskHandle<R>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.submit(argument, false)
    }

    fn submit<A, R>(self, argument: A, attended: bool) -> TaskHandle<R>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let cell = Arc::new(TaskCell::default());
        let task = TaskId::next();
        let prepared = self
            .site::<A, R>(task)
            .and_then(|site| Ok((site, encode_one(argument)?)));
        match prepared {
            Ok((site, items)) => {
                let chunk = site.chunk(0, 1, items, attended, cell.clone());
                self.executor.submit(chunk);
            }
            Err(error) => cell.complete(Piece::failed(0, 1, error)),
        }
        TaskHandle::new(Pending::new(cell, self.executor, task))
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
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let items = items.into_iter();
        let mut values = Vec::with_capacity(reserve(&items));
        let mut first_error = None;
        self.for_each(items, |outcome| match outcome {
            Ok(value) if first_error.is_none() => values.push(value),
            Ok(_) => {}
            Err(error) => {
                first_error.get_or_insert(error);
            }
        })?;
        match first_error {
            None => Ok(values),
            Some(error) => Err(error),
        }
    }

    /// See [`Pool::try_map`](crate::Pool::try_map).
    ///
    /// # Panics
    /// When the iterator panics.
    pub fn try_map<I, R>(self, items: I) -> Vec<Result<R, TaskError>>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let items = items.into_iter();
        let mut outcomes = Vec::with_capacity(reserve(&items));
        if let Err(error) = self.site::<I::Item, R>(TaskId::next()) {
            // Nothing was run; each item fails for the same reason.
            return items
                .enumerate()
                .map(|(index, _)| Err(error.clone().at_index(index)))
                .collect();
        }
        let checked = self.for_each(items, |outcome| outcomes.push(outcome));
        debug_assert!(checked.is_ok(), "checked above");
        outcomes
    }

    /// Runs all items and gives each outcome, in order, to `visit`.
    fn for_each<I, R>(
        self,
        items: I,
        mut visit: impl FnMut(Result<R, TaskError>),
    ) -> Result<(), TaskError>
    where
        F: Fn(I::Item) -> R + 'static,
        I: Iterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let site = self.site::<I::Item, R>(TaskId::next())?;
        let mut feed = Feed::new(self.executor, site, items);
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
                decode_all(&piece, &mut visit);
            }
        }
        feed.rethrow();
        Ok(())
    }

    /// See [`Pool::map_async`](crate::Pool::map_async).
    pub fn map_async<I, R>(self, items: I) -> MapHandle<R>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let collector = Arc::new(Collector::default());
        let task = TaskId::next();
        match self.site::<I::Item, R>(task) {
            Ok(site) => {
                // All is encoded before anything is sent, so that an input that panics has
                // submitted nothing.
                let items: Vec<Result<Vec<u8>, TaskError>> = items
                    .into_iter()
                    .map(|argument| {
                        let mut item = Vec::new();
                        encode_item(argument, &mut item).map(|()| item)
                    })
                    .collect();
                collector.expect(items.len());
                self.submit_all(&site, &items, &collector);
            }
            Err(error) => {
                collector.expect(1);
                collector.complete(Piece::failed(0, 1, error));
            }
        }
        MapHandle::new(Pending::new(collector, self.executor, task))
    }

    fn submit_all(
        &self,
        site: &CallSite,
        items: &[Result<Vec<u8>, TaskError>],
        collector: &Arc<Collector>,
    ) {
        let workers = self.executor.processes();
        let mut next = 0;
        while next < items.len() {
            let size = guided(items.len() - next, workers, site.options.chunksize) as usize;
            let first = next;
            let mut chunk = Vec::new();
            while let Some(Ok(item)) = items.get(next)
                && next - first < size
            {
                chunk.extend_from_slice(item);
                next += 1;
            }
            if next > first {
                let count = (next - first) as u32;
                let chunk = site.chunk(first, count, chunk.into(), false, collector.clone());
                self.executor.submit(chunk);
            }
            if let Some(Err(error)) = items.get(next) {
                collector.complete(Piece::failed(next, 1, error.clone()));
                next += 1;
            }
        }
    }

    /// See [`Pool::imap`](crate::Pool::imap).
    pub fn imap<I, R>(self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.lazily(items, true)
    }

    /// See [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    pub fn imap_unordered<I, R>(self, items: I) -> Imap<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.lazily(items, false)
    }

    fn lazily<I, R>(self, items: I, ordered: bool) -> Imap<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + 'static,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let site = self.site::<I::Item, R>(TaskId::next());
        let feed = site.map(|site| Feed::new(self.executor, site, items.into_iter()));
        Imap::new(feed, ordered)
    }

    /// What the chunks of this call have in common.
    fn site<A, R>(&self, task: TaskId) -> Result<CallSite, TaskError>
    where
        F: Fn(A) -> R + 'static,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let entry = Entry::of::<F, A, R>()
            .map_err(|error| TaskError::new(TaskErrorKind::Invalid, error.to_string()))?;
        Ok(CallSite {
            task,
            entry,
            options: self.options.check()?,
        })
    }
}

/// The argument as an item; a small one without an allocation.
fn encode_one<A: Serialize + 'static>(argument: A) -> Result<Bytes, TaskError> {
    let argument = match codec::lend(argument, LARGE_BYTES) {
        Ok(large) => return Ok(Bytes::lent(large)),
        Err(argument) => argument,
    };
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut items = SCRATCH.take();
    items.clear();
    let encoded = encode_item(argument, &mut items);
    if items.len() > Bytes::INLINE {
        return encoded.map(|()| Bytes::from(items));
    }
    let bytes = Bytes::from(&items[..]);
    SCRATCH.set(items);
    encoded.map(|()| bytes)
}

/// How many results to make room for; an iterator may claim anything.
fn reserve<I: Iterator>(items: &I) -> usize {
    items.size_hint().0.min(1 << 20)
}

impl<F> fmt::Debug for CallWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWith")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
