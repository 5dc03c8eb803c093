//! Lazy maps: iterators over results.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::Piece;
use crate::error::TaskError;
use crate::feed::{Feed, InOrder};
use crate::handle::decode_all;

/// An iterator over the results of a lazy map: what [`imap`](crate::Pool::imap) and
/// [`imap_unordered`](crate::Pool::imap_unordered) return.
///
/// Like every iterator it does nothing until it is asked for an item. From then on it takes items
/// from its input ahead of the results that it gives, so many that no worker waits, or as many
/// as [`buffer`](crate::CallWith::buffer) says. Dropping it cancels what is under way.
///
/// An input that panics is heard of after the results of all items before.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct Imap<I: Iterator, R> {
    lazy: Lazy<I, Result<R, TaskError>>,
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
        self.lazy
            .next(Err, |piece, ready| decode_all(&piece, ready))
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

/// A lazy map, whatever `T` its outcomes are given as.
pub(crate) struct Lazy<I: Iterator, T> {
    /// `None` once it is over.
    feed: Option<Feed<I>>,
    /// In order, or as they come.
    in_order: Option<InOrder>,
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
            in_order: ordered.then(InOrder::default),
            ready: VecDeque::new(),
            has_given: false,
            error,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.feed.is_none()
    }
}

impl<A, I, T> Lazy<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    /// The next outcome: `decode` reads those of a piece, and `fail` makes one of an error.
    pub(crate) fn next(
        &mut self,
        fail: impl FnOnce(TaskError) -> T,
        mut decode: impl FnMut(Arc<Piece>, &mut VecDeque<T>),
    ) -> Option<T> {
        if let Some(error) = self.error.take() {
            return Some(fail(error));
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
            let feed = self.feed.as_mut()?;
            let pieces = feed.next_pieces();
            if pieces.is_empty() {
                let over = self.feed.take();
                if let Some(mut over) = over {
                    over.rethrow();
                }
                return None;
            }
            for piece in pieces {
                let mut next = Some(piece);
                if let Some(in_order) = &mut self.in_order {
                    in_order.push(next.take()?);
                    next = in_order.pop();
                }
                while let Some(piece) = next {
                    decode(piece, &mut self.ready);
                    next = self.in_order.as_mut().and_then(InOrder::pop);
                }
            }
        }
    }
}
