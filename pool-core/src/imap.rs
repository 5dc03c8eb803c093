//! Lazy maps: iterators over results.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

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
    /// `None` once it is over.
    feed: Option<Feed<I>>,
    /// In order, or as they come.
    in_order: Option<InOrder>,
    ready: VecDeque<Result<R, TaskError>>,
    /// The caller has a result that the feed does not know of.
    has_given: bool,
    /// Why there is nothing to iterate over: said once.
    error: Option<TaskError>,
    result: PhantomData<fn() -> R>,
}

impl<I: Iterator, R> Imap<I, R> {
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
            result: PhantomData,
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
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        // Only now: an item is with the caller when he comes back for the next one, and its
        // result may be what the input waits for.
        if std::mem::take(&mut self.has_given)
            && let Some(feed) = &mut self.feed
        {
            feed.give(1);
        }
        loop {
            if let Some(result) = self.ready.pop_front() {
                self.has_given = true;
                return Some(result);
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
                    decode_all(&piece, &mut self.ready);
                    next = self.in_order.as_mut().and_then(InOrder::pop);
                }
            }
        }
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
            .field("is_over", &self.feed.is_none())
            .finish_non_exhaustive()
    }
}
