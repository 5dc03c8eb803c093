//! Lazy maps: iterators over results.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;

use super::decode::ItemOutcome;
use super::input::feed::{InOrder, InputFeeder, ResultOrder, Source};
use super::measured::Measured;
use super::ready::Ready;
use crate::error::task_error::TaskError;
use crate::task::chunk_outcome::ChunkOutcome;
use crate::task::executor::Cancel;

/// An iterator over the results of a lazy map: what [`imap`](crate::Pool::imap) and
/// [`imap_unordered`](crate::Pool::imap_unordered) return.
///
/// Like every iterator it does nothing until it is asked for an item. From then on items are taken
/// from the input ahead of the results that are given: as many as keep the workers busy, or as many
/// as [`buffer`](crate::Call::buffer) says. An input that cannot wait (a range, a `Vec`) is read by
/// the thread that asks for results. That thread also takes the first few items of any other input;
/// then a thread of the iterator's own, the feeder, goes on.
///
/// # Inputs that wait
/// The input may be one that waits: standard input, a channel, a socket. It may even wait for
/// results of the same call. An item begins when the input has returned it and a worker has nothing
/// to do. A result is given when it is ready. Neither waits for the item that comes next.
///
/// # The end
/// Dropping the iterator cancels what is under way, as [`cancel`](Self::cancel) does;
/// [`kill`](Self::kill) ends it at once. The first result that will do is had like this:
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let mut squares = pool.imap_unordered(|x: u64| x * x, 1..);
/// let found = squares.find(|square| square.as_ref().is_ok_and(|square| *square > 50));
/// squares.kill();
/// assert_eq!(found, Some(Ok(64)));
/// ```
///
/// If the input keeps the feeder waiting at that
/// moment, the feeder ends, and drops the input, as soon as the input has returned. An input that
/// never returns keeps that one thread for as long as the program runs. (Where the input keeps the
/// thread waiting that asks for results, nothing else was to be given.)
///
/// An input that panics is heard of after the results of all items before.
///
/// If the system refuses to start a thread, the input is read in the caller's thread, as
/// [`imap_local`](crate::Pool::imap_local) does it.
///
/// In an `async` function, turn it into a stream with
#[cfg_attr(feature = "stream", doc = "[`into_stream`](Self::into_stream).")]
#[cfg_attr(not(feature = "stream"), doc = "`into_stream` (feature `stream`).")]
///
/// # Type parameters
/// `R` is what the function returns, and the others need not be written: `T` is what is given for
/// each item, and `S` reads the input. [`ImapMeasured`] gives metrics with each outcome;
/// [`ImapLocal`] reads an input that is not `Send`.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct Imap<R, T = Result<R, TaskError>, S = Box<dyn Source + Send>> {
    pub(crate) lazy: ImapInner<S, T>,
    result: PhantomData<fn() -> R>,
}

/// An [`Imap`] that gives each result with its metrics.
pub type ImapMeasured<R> = Imap<R, Measured<R>>;

/// An [`Imap`] over an input that must be read in the caller's thread: what
/// [`imap_local`](crate::Pool::imap_local) and
/// [`imap_unordered_local`](crate::Pool::imap_unordered_local) return.
///
/// It asks its input for items while it is asked for a result. An item still begins when the input
/// has returned it and a worker has nothing to do. But a result that is ready meanwhile is given
/// only when the input has answered: over an input that waits for results, this waits forever.
pub type ImapLocal<I, R> = Imap<R, Result<R, TaskError>, InputFeeder<I>>;

/// An [`ImapLocal`] that gives each result with its metrics.
pub type ImapMeasuredLocal<I, R> = Imap<R, Measured<R>, InputFeeder<I>>;

impl<R, T, S> Imap<R, T, S> {
    pub(crate) fn new(source: Result<S, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: ImapInner::new(source, ordered),
            result: PhantomData,
        }
    }
}

impl<R, T, S: Source> Imap<R, T, S> {
    /// Ends the call: what has not begun is not run, and what runs is asked to stop
    /// ([`worker::is_cancelled`](crate::worker::is_cancelled)). It is the same as to drop it.
    pub fn cancel(self) {
        self.lazy.end_by(Cancel::Cooperative);
    }

    /// Ends the call at once: what has not begun is not run, and what runs is killed with its
    /// worker.
    pub fn kill(self) {
        self.lazy.end_by(Cancel::Kill);
    }
}

impl<R, T: ItemOutcome, S: Source> Iterator for Imap<R, T, S> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<R, T: ItemOutcome, S: Source> FusedIterator for Imap<R, T, S> {}

impl<R, T, S> fmt::Debug for Imap<R, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

/// A lazy map, whatever `T` its outcomes are given as.
pub(crate) struct ImapInner<S, T> {
    /// `None` once it is over.
    pub(crate) source: Option<S>,
    /// What has arrived.
    arrived: ResultOrder,
    /// What was taken of that, of one chunk at most.
    ready: Ready<T>,
    /// How many results were put into that.
    put: usize,
    /// How many of them were given, as far as the source knows.
    told: usize,
    /// The source must know at once.
    counts_given: bool,
    /// Why there is nothing to iterate over: said once.
    error: Option<TaskError>,
}

impl<S, T> ImapInner<S, T> {
    pub(crate) fn new(source: Result<S, TaskError>, ordered: bool) -> Self {
        let (source, error) = match source {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            counts_given: source.is_some(),
            source,
            arrived: if ordered {
                ResultOrder::InOrder(InOrder::default())
            } else {
                ResultOrder::First(VecDeque::new())
            },
            ready: Ready::default(),
            put: 0,
            told: 0,
            error,
        }
    }

    /// Whether nothing will ever come.
    pub(crate) fn is_over(&self) -> bool {
        self.source.is_none() && self.error.is_none()
    }
}

impl<S: Source, T> ImapInner<S, T> {
    /// Ends in this way.
    pub(crate) fn end_by(mut self, how: Cancel) {
        if let Some(source) = &mut self.source {
            source.end_by(how);
        }
    }
}

impl<S: Source, T: ItemOutcome> ImapInner<S, T> {
    #[inline]
    pub(crate) fn next(&mut self) -> Option<T> {
        if !self.counts_given
            && let Some(outcome) = self.ready.next()
        {
            return Some(outcome);
        }
        self.next_arrived()
    }

    #[inline(never)]
    fn next_arrived(&mut self) -> Option<T> {
        loop {
            if let Some(outcome) = self.next_ready() {
                return Some(outcome);
            }
            let source = self.source.as_mut()?;
            let parts = source.next_parts();
            self.counts_given = source.counts_given();
            if !self.take_in(parts) {
                return self.error.take().map(T::refused);
            }
        }
    }

    /// The next outcome, if it is there.
    pub(crate) fn next_ready(&mut self) -> Option<T> {
        if let Some(error) = self.error.take() {
            return Some(T::refused(error));
        }
        // Only now: an item is with the caller when they come back for the next one, and its
        // result may be what the input waits for.
        let given = self.put - self.ready.len();
        if given > self.told
            && let Some(source) = &mut self.source
        {
            source.give(given - self.told);
            self.told = given;
        }
        loop {
            if let Some(outcome) = self.ready.next() {
                return Some(outcome);
            }
            self.ready = Ready::new(self.arrived.pop()?);
            self.put += self.ready.len();
        }
    }

    /// Takes in what the source has given; `false`: it was nothing, so all is done.
    pub(crate) fn take_in(&mut self, parts: Vec<Arc<ChunkOutcome>>) -> bool {
        let any = !parts.is_empty();
        for part in parts {
            self.arrived.push(part);
        }
        if !any && let Some(mut over) = self.source.take() {
            self.error = over.error();
            over.rethrow();
        }
        any
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        let Some(source) = &self.source else {
            let errors = usize::from(self.error.is_some());
            return (errors, Some(errors));
        };
        let (low, high) = source.remaining();
        let untold = self.put - self.ready.len() - self.told;
        (low - untold, high.map(|high| high - untold))
    }
}
