//! Lazy maps with receipts.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Receipted;
use crate::api::imap::{Given, Lazy};
use crate::api::input::feed::{Feed, Source};
use crate::error::task_error::TaskError;
use crate::observe::receipt::Receipt;
use crate::task::chunk::Piece;

/// An iterator over the results of a lazy map, with receipts; see [`Imap`](crate::Imap), which it
/// is like in all else.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct ImapReceipts<R> {
    pub(crate) lazy: Lazy<Box<dyn Source + Send>, Receipted<R>>,
}

impl<R> ImapReceipts<R> {
    pub(super) fn new(source: Result<Box<dyn Source + Send>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: Lazy::new(source, ordered),
        }
    }
}

impl<R: DeserializeOwned + 'static> Iterator for ImapReceipts<R> {
    type Item = Receipted<R>;

    fn next(&mut self) -> Option<Receipted<R>> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<R: DeserializeOwned + 'static> Given for Receipted<R> {
    fn refused(error: TaskError) -> Self {
        Self {
            outcome: Err(error),
            receipt: Receipt::default(),
        }
    }

    fn read(piece: Arc<Piece>, ready: &mut VecDeque<Self>) {
        Self::read_all(piece, ready);
    }
}

impl<R: DeserializeOwned + 'static> FusedIterator for ImapReceipts<R> {}

impl<R> fmt::Debug for ImapReceipts<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapReceipts")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

/// The same over an input that is read in the caller's thread; see [`ImapLocal`](crate::ImapLocal),
/// which it is like in all else.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct ImapReceiptsLocal<I: Iterator, R> {
    lazy: Lazy<Feed<I>, Receipted<R>>,
}

impl<I: Iterator, R> ImapReceiptsLocal<I, R> {
    pub(super) fn new(feed: Result<Feed<I>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: Lazy::new(feed, ordered),
        }
    }
}

impl<A, I, R> Iterator for ImapReceiptsLocal<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    type Item = Receipted<R>;

    fn next(&mut self) -> Option<Receipted<R>> {
        self.lazy.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<A, I, R> FusedIterator for ImapReceiptsLocal<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
}

impl<I: Iterator, R> fmt::Debug for ImapReceiptsLocal<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapReceiptsLocal")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}
