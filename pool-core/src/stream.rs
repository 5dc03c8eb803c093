//! Lazy maps as streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TaskError;
use crate::imap::{Given, Imap, Lazy};
use crate::receipt::{ImapReceipts, Receipted};

/// So many results are given in a row before whatever else the executor runs has its turn: as many
/// as tokio grants to what it knows of.
const STREAK: u8 = 128;

/// A stream of the results of a lazy map: what [`Imap::into_stream`] returns, `T` being a `Result`.
/// Needs the feature `stream`.
///
/// It runs under any executor, without a thread of its own: the pool's one thread wakes the task
/// that has polled last when there are results. A poll neither waits nor keeps the thread for
/// long, unless the input does: it takes items from the input and encodes them for 100 µs at
/// most, or for one item if that takes longer, and decodes what one worker had for one chunk. After
/// 128 results in a row it lets the executor run something else.
///
/// Dropping it cancels what is under way, as dropping an [`Imap`] does: items that have not begun
/// are not run, and those that run are asked to stop
/// ([`worker::is_cancelled`](crate::worker::is_cancelled)).
///
/// ```
/// use std::pin::Pin;
/// use futures_core::Stream;
/// use pool_core::{Pool, SerialPool, TaskError};
///
/// /// As `StreamExt::next` of the crates `futures` and `tokio-stream`.
/// async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
///     std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
/// }
///
/// async fn total(pool: &impl Pool) -> Result<u64, TaskError> {
///     let mut squares = pool.imap_unordered(|x: u64| x * x, 0..1000).into_stream();
///     let mut total = 0;
///     while let Some(square) = next(&mut squares).await {
///         total += square?;
///     }
///     Ok(total)
/// }
/// # let pool = SerialPool::new();
/// # let mut future = std::pin::pin!(total(&pool));
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # let total = loop {
/// #     if let std::task::Poll::Ready(total) = future.as_mut().poll(&mut context) { break total; }
/// # };
/// # assert_eq!(total.unwrap(), 332_833_500);
/// ```
#[must_use = "streams do nothing until they are polled"]
pub struct ImapStream<I: Iterator, T> {
    lazy: Lazy<I, T>,
    /// Results given since it was last pending.
    streak: u8,
}

impl<A, I, R> Imap<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    /// The same results as a stream, for `async` functions. Needs the feature `stream`.
    ///
    /// It is another type because an iterator and a stream have methods of the same names, `next`
    /// and `map` among them, and a type that were both could be used as neither.
    pub fn into_stream(self) -> ImapStream<I, Result<R, TaskError>> {
        ImapStream::new(self.lazy)
    }
}

impl<A, I, R> ImapReceipts<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    /// See [`Imap::into_stream`].
    pub fn into_stream(self) -> ImapStream<I, Receipted<R>> {
        ImapStream::new(self.lazy)
    }
}

impl<A, I, T> ImapStream<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    fn new(mut lazy: Lazy<I, T>) -> Self {
        if let Some(feed) = &mut lazy.feed {
            feed.stop_driving();
        }
        Self { lazy, streak: 0 }
    }
}

/// Nothing in it is ever pinned, the input included.
impl<I: Iterator, T> Unpin for ImapStream<I, T> {}

impl<A, I, T> Stream for ImapStream<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    T: Given,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { lazy, streak } = &mut *self;
        if *streak == STREAK {
            *streak = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut fill = true;
        loop {
            if let Some(outcome) = lazy.next_ready() {
                *streak += 1;
                return Poll::Ready(Some(outcome));
            }
            let Some(feed) = &mut lazy.feed else {
                return Poll::Ready(None);
            };
            let Poll::Ready(pieces) = feed.poll_pieces(context, fill) else {
                *streak = 0;
                return Poll::Pending;
            };
            fill = false;
            if !lazy.take_in(pieces) {
                return Poll::Ready(None);
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<A, I, T> FusedStream for ImapStream<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    T: Given,
{
    fn is_terminated(&self) -> bool {
        self.lazy.is_over()
    }
}

impl<I: Iterator, T> fmt::Debug for ImapStream<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapStream")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Unpin>() {}
    assert::<ImapStream<std::vec::IntoIter<u8>, u8>>();
};
