//! ImapInner maps as streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::imap::{Imap, ImapInner, ImapItem, ImapLocal};
use super::input::feed::{InputFeeder, Source};
use super::measured::{ImapMeasured, Measured};
use crate::error::task_error::TaskError;

/// How many results are given in a row before whatever else the executor runs has its turn: as many
/// as tokio grants to what it knows of.
const STREAK: u8 = 128;

/// A stream of the results of a lazy map: what [`Imap::into_stream`] returns, `T` being a `Result`.
/// Needs the feature `stream`.
///
/// It runs under any executor. The input is read by a thread of its own, as that of an [`Imap`],
/// and may wait as long as it likes. The pool's one thread wakes the task that has polled last when
/// there are results. A poll neither waits nor keeps the thread for long: it decodes what one
/// worker had for one chunk. After 128 results in a row it lets the executor run something else.
///
/// Dropping it cancels what is under way, as dropping an [`Imap`] does: items that have not begun
/// are not run, and those that run are asked to stop
/// ([`worker::is_cancelled`](crate::worker::is_cancelled)).
///
/// ```
/// # use procpool_core as procpool;
/// use std::pin::Pin;
/// use futures_core::Stream;
/// use procpool::{Pool, SerialPool, TaskError};
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
pub struct ImapStream<T> {
    polled: Polled<Box<dyn Source + Send>, T>,
}

/// A stream of the results of a lazy map whose input must be read in the thread that polls: what
/// [`ImapLocal::into_stream`] returns. Needs the feature `stream`.
///
/// A poll neither waits nor keeps the thread for long, unless the input does: it takes items from
/// the input and encodes them for 100 µs at most, or for one item if that takes longer. In all else
/// it is like [`ImapStream`].
#[must_use = "streams do nothing until they are polled"]
pub struct ImapLocalStream<I: Iterator, T> {
    polled: Polled<InputFeeder<I>, T>,
}

/// A lazy map that is polled.
struct Polled<S, T> {
    lazy: ImapInner<S, T>,
    /// Results given since it was last pending.
    streak: u8,
}

impl<R: DeserializeOwned + 'static> Imap<R> {
    /// The same results as a stream, for `async` functions. Needs the feature `stream`.
    ///
    /// It is another type because an iterator and a stream have methods of the same names, `next`
    /// and `map` among them, and a type that were both could be used as neither.
    pub fn into_stream(self) -> ImapStream<Result<R, TaskError>> {
        ImapStream {
            polled: Polled::new(self.lazy),
        }
    }
}

impl<R: DeserializeOwned + 'static> ImapMeasured<R> {
    /// See [`Imap::into_stream`].
    pub fn into_stream(self) -> ImapStream<Measured<R>> {
        ImapStream {
            polled: Polled::new(self.lazy),
        }
    }
}

impl<A, I, R> ImapLocal<I, R>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    R: DeserializeOwned + 'static,
{
    /// See [`Imap::into_stream`].
    pub fn into_stream(self) -> ImapLocalStream<I, Result<R, TaskError>> {
        ImapLocalStream {
            polled: Polled::new(self.lazy),
        }
    }
}

impl<S: Source, T: ImapItem> Polled<S, T> {
    fn new(mut lazy: ImapInner<S, T>) -> Self {
        if let Some(source) = &mut lazy.source {
            source.stop_driving();
        }
        Self { lazy, streak: 0 }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { lazy, streak } = self;
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
            let Some(source) = &mut lazy.source else {
                return Poll::Ready(None);
            };
            let Poll::Ready(pieces) = source.poll_pieces(context, fill) else {
                *streak = 0;
                return Poll::Pending;
            };
            fill = false;
            if !lazy.take_in(pieces) {
                return Poll::Ready(lazy.next_ready());
            }
        }
    }
}

/// Nothing in it is ever pinned.
impl<T> Unpin for ImapStream<T> {}

/// Nothing in it is ever pinned, the input included.
impl<I: Iterator, T> Unpin for ImapLocalStream<I, T> {}

impl<T: ImapItem> Stream for ImapStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.polled.poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.polled.lazy.size_hint()
    }
}

impl<T: ImapItem> FusedStream for ImapStream<T> {
    fn is_terminated(&self) -> bool {
        self.polled.lazy.is_over()
    }
}

impl<A, I, T> Stream for ImapLocalStream<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    T: ImapItem,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.polled.poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.polled.lazy.size_hint()
    }
}

impl<A, I, T> FusedStream for ImapLocalStream<I, T>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
    T: ImapItem,
{
    fn is_terminated(&self) -> bool {
        self.polled.lazy.is_over()
    }
}

impl<T> fmt::Debug for ImapStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapStream")
            .field("is_over", &self.polled.lazy.is_over())
            .finish_non_exhaustive()
    }
}

impl<I: Iterator, T> fmt::Debug for ImapLocalStream<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapLocalStream")
            .field("is_over", &self.polled.lazy.is_over())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Unpin>() {}
    assert::<ImapStream<u8>>();
    assert::<ImapLocalStream<std::vec::IntoIter<u8>, u8>>();
};
