//! Lazy maps, and tasks that emit values, as streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::decode::ItemOutcome;
use super::handle::TaskHandle;
use super::imap::{Imap, ImapInner};
use super::input::feed::{InputFeeder, Source};
use super::stream_handle::StreamHandle;
use crate::error::task_error::TaskError;
use crate::task::executor::Cancel;
use crate::value::portable::Portable;
use futures_core::{FusedStream, Stream};

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
pub struct ImapStream<T, S = Box<dyn Source + Send>> {
    lazy: ImapInner<S, T>,
    /// Results given since it was last pending.
    streak: u8,
}

/// An [`ImapStream`] whose input must be read in the thread that polls: what
/// [`Imap::into_stream`] makes of an [`ImapLocal`](crate::ImapLocal). Needs the feature `stream`.
///
/// A poll neither waits nor keeps the thread for long, unless the input does: it takes items from
/// the input and encodes them for 100 µs at most, or for one item if that takes longer.
pub type ImapLocalStream<I, T> = ImapStream<T, InputFeeder<I>>;

impl<R, T: ItemOutcome, S: Source> Imap<R, T, S> {
    /// The same results as a stream, for `async` functions. Needs the feature `stream`.
    ///
    /// It is another type because an iterator and a stream have methods of the same names, `next`
    /// and `map` among them, and a type that were both could be used as neither.
    pub fn into_stream(self) -> ImapStream<T, S> {
        let mut lazy = self.lazy;
        if let Some(source) = &mut lazy.source {
            source.stop_driving();
        }
        ImapStream { lazy, streak: 0 }
    }
}

impl<T, S: Source> ImapStream<T, S> {
    /// Ends the call, as [`Imap::cancel`] does. It is the same as to drop it.
    pub fn cancel(self) {
        self.lazy.end_by(Cancel::Cooperative);
    }

    /// Ends the call at once, as [`Imap::kill`] does.
    pub fn kill(self) {
        self.lazy.end_by(Cancel::Kill);
    }
}

/// Nothing in it is ever pinned, the input included.
impl<T, S> Unpin for ImapStream<T, S> {}

impl<T: ItemOutcome, S: Source> Stream for ImapStream<T, S> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { lazy, streak } = self.get_mut();
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
            let Poll::Ready(parts) = source.poll_parts(context, fill) else {
                *streak = 0;
                return Poll::Pending;
            };
            fill = false;
            if !lazy.take_in(parts) {
                return Poll::Ready(lazy.next_ready());
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lazy.size_hint()
    }
}

impl<T: ItemOutcome, S: Source> FusedStream for ImapStream<T, S> {
    fn is_terminated(&self) -> bool {
        self.lazy.is_over()
    }
}

impl<T, S> fmt::Debug for ImapStream<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapStream")
            .field("is_over", &self.lazy.is_over())
            .finish_non_exhaustive()
    }
}

/// A stream of the values that a task emits while it runs: what [`StreamHandle::into_stream`]
/// returns. Needs the feature `stream`.
///
/// Its items are those of a [`StreamHandle`]: values, and the error of a task that fails.
/// [`into_result`](Self::into_result) gives a handle of the result, which can be awaited.
///
/// It runs under any executor. A poll does not wait, and decodes one value; after 128 in a row it
/// lets the executor run something else. Dropping it cancels the task, as dropping the handle does.
///
/// ```
/// # use procpool_core as procpool;
/// use std::pin::Pin;
/// use futures_core::Stream;
/// use procpool::{Emitter, Pool, SerialPool, TaskError};
///
/// /// As `StreamExt::next` of the crates `futures` and `tokio-stream`.
/// async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
///     std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
/// }
///
/// fn halve(mut number: u32, out: &Emitter<u32>) -> u32 {
///     let mut steps = 0;
///     while number > 1 && out.emit(number).is_ok() {
///         number /= 2;
///         steps += 1;
///     }
///     steps
/// }
///
/// async fn steps(pool: &impl Pool) -> Result<(u32, u32), TaskError> {
///     let mut values = pool.call(halve).stream(100).into_stream();
///     let mut sum = 0;
///     while let Some(value) = next(&mut values).await {
///         sum += value?;
///     }
///     Ok((sum, values.into_result().await?))
/// }
/// # let pool = SerialPool::new();
/// # let mut future = std::pin::pin!(steps(&pool));
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # let steps = loop {
/// #     if let std::task::Poll::Ready(steps) = future.as_mut().poll(&mut context) { break steps; }
/// #     std::thread::yield_now();
/// # };
/// # assert_eq!(steps, Ok((100 + 50 + 25 + 12 + 6 + 3, 6)));
/// ```
#[must_use = "the task waits until its values are read; `drop` it to end the task"]
pub struct ValueStream<Y, R> {
    handle: StreamHandle<Y, R>,
    is_over: bool,
    /// Values given since it was last pending.
    streak: u8,
}

impl<Y, R> StreamHandle<Y, R> {
    /// The same values as a stream, for `async` functions. Needs the feature `stream`.
    ///
    /// It is another type because an iterator and a stream have methods of the same names.
    pub fn into_stream(self) -> ValueStream<Y, R> {
        ValueStream {
            handle: self,
            is_over: false,
            streak: 0,
        }
    }
}

impl<Y, R> ValueStream<Y, R> {
    /// Ends the task early, as [`StreamHandle::cancel`] does.
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// Ends the task now, as [`StreamHandle::kill`] does.
    pub fn kill(&self) {
        self.handle.kill();
    }

    /// Gives up the values that were not read, and those that are still to come, and gives the
    /// handle of the result, to be awaited. The task runs on.
    pub fn into_result(self) -> TaskHandle<R> {
        self.handle.into_result()
    }
}

/// Nothing in it is ever pinned.
impl<Y, R> Unpin for ValueStream<Y, R> {}

impl<Y: Portable, R: Portable> Stream for ValueStream<Y, R> {
    type Item = Result<Y, TaskError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.streak == STREAK {
            this.streak = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.handle.poll(Some(context.waker())) {
            this.streak = 0;
            return Poll::Pending;
        }
        this.streak += 1;
        let next = this.handle.next_ready();
        this.is_over |= next.is_none();
        Poll::Ready(next)
    }
}

impl<Y: Portable, R: Portable> FusedStream for ValueStream<Y, R> {
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl<Y, R> fmt::Debug for ValueStream<Y, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueStream")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Unpin>() {}
    assert::<ImapStream<u8>>();
    assert::<ValueStream<u8, u8>>();
    assert::<ImapLocalStream<std::vec::IntoIter<u8>, u8>>();
};
