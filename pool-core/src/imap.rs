//! Lazy maps: iterators over results.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::Piece;
use crate::error::TaskError;
use crate::feed::{Feed, InOrder, Turn};
use crate::handle::decode_all;

/// An iterator over the results of a lazy map: what [`imap`](crate::Pool::imap) and
/// [`imap_unordered`](crate::Pool::imap_unordered) return.
///
/// Like every iterator it does nothing until it is asked for an item. From then on it takes items
/// from its input ahead of the results that it gives, so many that no worker waits, or as many
/// as [`buffer`](crate::CallWith::buffer) says. Dropping it cancels what is under way.
///
/// An input that panics is heard of after the results of all items before.
///
/// In an `async` function, turn it into a stream with
#[cfg_attr(feature = "stream", doc = "[`into_stream`](Self::into_stream).")]
#[cfg_attr(not(feature = "stream"), doc = "`into_stream` (feature `stream`).")]
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct Imap<I: Iterator, R> {
    pub(crate) lazy: Lazy<I, Result<R, TaskError>>,
}

impl<I: Iterator, R> Imap<I, R> {
    pub(crate) fn new(feed: Result<Feed<I>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: Lazy::new(feed, ordered),
        }
    }
}

impl<A, I, R> Iterator for Imap<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<A, I, R> FusedIterator for Imap<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
}

impl<I: Iterator, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

/// What a lazy map gives for an item.
pub(crate) trait Given: Sized {
    /// What it gives if the call cannot be made.
    fn refused(error: TaskError) -> Self;

    /// What it gives for the items of a piece.
    fn read(piece: Arc<Piece>, ready: &mut VecDeque<Self>);
}

impl<R: DeserializeOwned + 'static> Given for Result<R, TaskError> {
    fn refused(error: TaskError) -> Self {
        Err(error)
    }

    fn read(piece: Arc<Piece>, ready: &mut VecDeque<Self>) {
        decode_all(&piece, ready);
    }
}

/// A lazy map, whatever `T` its outcomes are given as.
pub(crate) struct Lazy<I: Iterator, T> {
    /// `None` once it is over.
    pub(crate) feed: Option<Feed<I>>,
    /// What has arrived.
    arrived: Turn,
    /// What was read of that.
    ready: VecDeque<T>,
    /// The caller has a result that the feed does not know of.
    has_given: bool,
    /// Why there is nothing to iterate over: said once.
    error: Option<TaskError>,
}

impl<I: Iterator, T> Lazy<I, T> {
    pub(crate) fn new(feed: Result<Feed<I>, TaskError>, ordered: bool) -> Self {
        let (feed, error) = match feed {
            Ok(feed) => (Some(feed), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            feed,
            arrived: if ordered {
                Turn::InOrder(InOrder::default())
            } else {
                Turn::First(VecDeque::new())
            },
            ready: VecDeque::new(),
            has_given: false,
            error,
        }
    }

    /// Whether nothing will ever come.
    pub(crate) fn is_over(&self) -> bool {
        self.feed.is_none() && self.error.is_none()
    }
}

impl<A, I, T> Lazy<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    T: Given,
{
    pub(crate) fn next(&mut self) -> Option<T> {
        loop {
            if let Some(outcome) = self.next_ready() {
                return Some(outcome);
            }
            let pieces = self.feed.as_mut()?.next_pieces();
            if !self.take_in(pieces) {
                return None;
            }
        }
    }

    /// The next outcome, if it is there.
    pub(crate) fn next_ready(&mut self) -> Option<T> {
        if let Some(error) = self.error.take() {
            return Some(T::refused(error));
        }
        // Only now: an item is with the caller when he comes back for the next one, and its
        // result may be what the input waits for.
        if std::mem::take(&mut self.has_given)
            && let Some(feed) = &mut self.feed
        {
            feed.give(1);
        }
        loop {
            if let Some(outcome) = self.ready.pop_front() {
                self.has_given = true;
                return Some(outcome);
            }
            T::read(self.arrived.pop()?, &mut self.ready);
        }
    }

    /// Takes in what the feed has given; `false`: it was nothing, so all is through.
    pub(crate) fn take_in(&mut self, pieces: Vec<Arc<Piece>>) -> bool {
        let any = !pieces.is_empty();
        for piece in pieces {
            self.arrived.push(piece);
        }
        if !any && let Some(mut over) = self.feed.take() {
            over.rethrow();
        }
        any
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        let Some(feed) = &self.feed else {
            let errors = usize::from(self.error.is_some());
            return (errors, Some(errors));
        };
        let (low, high) = feed.remaining();
        let with_caller = usize::from(self.has_given);
        (low - with_caller, high.map(|high| high - with_caller))
    }
}
