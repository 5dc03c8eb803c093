//! Lazy maps with metrics.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Measured;
use crate::api::imap::{ImapInner, ImapItem};
use crate::api::input::feed::{InputFeeder, Source};
use crate::error::task_error::TaskError;
use crate::observe::task_metrics::TaskMetrics;
use crate::task::chunk::ChunkOutcome;

/// An iterator over the results of a lazy map, with metrics; see [`Imap`](crate::Imap), which it
/// is like in all else.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct ImapMeasured<R> {
    pub(crate) lazy: ImapInner<Box<dyn Source + Send>, Measured<R>>,
}

impl<R> ImapMeasured<R> {
    pub(super) fn new(source: Result<Box<dyn Source + Send>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: ImapInner::new(source, ordered),
        }
    }
}

impl<R: DeserializeOwned + 'static> Iterator for ImapMeasured<R> {
    type Item = Measured<R>;

    fn next(&mut self) -> Option<Measured<R>> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<R: DeserializeOwned + 'static> ImapItem for Measured<R> {
    fn refused(error: TaskError) -> Self {
        Self {
            outcome: Err(error),
            metrics: TaskMetrics::default(),
        }
    }

    fn read(piece: Arc<ChunkOutcome>) -> Vec<Self> {
        let mut outcomes = Vec::with_capacity(piece.count as usize);
        Self::read_all(piece, &mut outcomes);
        outcomes
    }
}

impl<R: DeserializeOwned + 'static> FusedIterator for ImapMeasured<R> {}

impl<R> fmt::Debug for ImapMeasured<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapMeasured")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

/// The same over an input that is read in the caller's thread; see [`ImapLocal`](crate::ImapLocal),
/// which it is like in all else.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct ImapMeasuredLocal<I: Iterator, R> {
    lazy: ImapInner<InputFeeder<I>, Measured<R>>,
}

impl<I: Iterator, R> ImapMeasuredLocal<I, R> {
    pub(super) fn new(feed: Result<InputFeeder<I>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: ImapInner::new(feed, ordered),
        }
    }
}

impl<A, I, R> Iterator for ImapMeasuredLocal<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    type Item = Measured<R>;

    fn next(&mut self) -> Option<Measured<R>> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<A, I, R> FusedIterator for ImapMeasuredLocal<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
}

impl<I: Iterator, R> fmt::Debug for ImapMeasuredLocal<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapMeasuredLocal")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}
