//! Lazy maps with receipts.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Receipt, Receipted};
use crate::call::Piece;
use crate::error::TaskError;
use crate::feed::Feed;
use crate::imap::{Given, Lazy};

/// An iterator over the results of a lazy map, with receipts; see [`Imap`](crate::Imap), which it is
/// like in all else.
#[must_use = "iterators do nothing until they are asked for an item"]
pub struct ImapReceipts<I: Iterator, R> {
    pub(crate) lazy: Lazy<I, Receipted<R>>,
}

impl<I: Iterator, R> ImapReceipts<I, R> {
    pub(super) fn new(feed: Result<Feed<I>, TaskError>, ordered: bool) -> Self {
        Self {
            lazy: Lazy::new(feed, ordered),
        }
    }
}

impl<A, I, R> Iterator for ImapReceipts<I, R>
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

impl<A, I, R> FusedIterator for ImapReceipts<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
}

impl<I: Iterator, R> fmt::Debug for ImapReceipts<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapReceipts")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}
