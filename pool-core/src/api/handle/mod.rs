//! Handles of calls that run in the background.

mod from_outcome;
mod pending;
mod result_cell;
mod watch;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use from_outcome::FromOutcome;
pub(crate) use pending::Pending;
pub(crate) use result_cell::{Collector, ResultCell, SingleResult};

use super::measured::Measured;
use crate::error::task_error::TaskError;
use crate::task::executor::{Cancel, Executor};

/// A call that runs in the background: what [`apply_async`](crate::Pool::apply_async),
/// [`map_async`](crate::Pool::map_async) and the same verbs of a call with metrics return.
///
/// It can be waited for, awaited, asked, cancelled and sent to other threads. Dropping it unread
/// changes nothing for the call, unless it was told so:
/// [`cancel_on_drop`](Self::cancel_on_drop), [`kill_on_drop`](Self::kill_on_drop).
///
/// `T` is what it gives:
///
/// | name | `T` | returned by |
/// |---|---|---|
/// | [`TaskHandle<R>`] | `Result<R, TaskError>` | `apply_async` |
/// | [`MapHandle<R>`] | `Result<Vec<R>, TaskError>` | `map_async` |
/// | [`MeasuredHandle<T>`] | [`Measured<R>`] | `apply_async` behind [`measured`] |
/// | | `Vec<Measured<R>>` | `map_async` behind `measured` |
///
/// [`measured`]: crate::Call::measured
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let one = pool.apply_async(|x: u64| x * x, 12);
/// let many = pool.map_async(|x: u64| x * x, 1..4);
/// assert_eq!(one.get().unwrap(), 144);
/// assert_eq!(many.get().unwrap(), [1, 4, 9]);
/// ```
///
/// `C` is where the outcomes arrive. It follows from the verb.
#[must_use = "a handle is how the result is read; `drop` it to say that nobody wants it"]
pub struct Handle<T, C: ResultCell = Collector> {
    pending: Pending<C>,
    result: PhantomData<fn() -> T>,
}

/// The [`Handle`] of a single task: what [`apply_async`](crate::Pool::apply_async) returns. It
/// gives the function's result, or the error of the task.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool, TaskHandle};
///
/// let pool = SerialPool::new();
/// let handle: TaskHandle<u64> = pool.apply_async(|x: u64| x * x, 12);
/// assert_eq!(handle.get().unwrap(), 144);
/// ```
pub type TaskHandle<R> = Handle<Result<R, TaskError>, SingleResult>;

/// The [`Handle`] of a map: what [`map_async`](crate::Pool::map_async) returns. It gives all
/// results in the order of the items, or the error of the item with the lowest index that failed;
/// the others were run all the same.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{MapHandle, Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let handle: MapHandle<u64> = pool.map_async(|x: u64| x * x, 1..4);
/// assert_eq!(handle.get().unwrap(), [1, 4, 9]);
/// ```
pub type MapHandle<R> = Handle<Result<Vec<R>, TaskError>>;

/// The [`Handle`] of a call with metrics. `T` is what it gives: a [`Measured`], or a vector of
/// them.
pub type MeasuredHandle<T> = Handle<T>;

impl<T, C: ResultCell> Handle<T, C> {
    pub(crate) fn new(cell: Arc<C>, executor: Arc<dyn Executor>) -> Self {
        Self::of(Pending::new(cell, executor))
    }

    pub(crate) fn of(pending: Pending<C>) -> Self {
        Self {
            pending,
            result: PhantomData,
        }
    }

    /// Waits until the call has ended: the task, or every item of a map.
    pub fn wait(&self) {
        self.pending.wait();
    }

    /// Waits until the call has ended, but no longer than `timeout`; `false`: it had not by then.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.pending.wait_timeout(timeout)
    }

    /// Whether the call has ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.is_ready()
    }

    /// Ends the call early. What has not begun is not run and ends as `Cancelled` at once. What
    /// runs is asked: [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to it, and
    /// when it returns it ends as `Cancelled` too, whatever it returns.
    pub fn cancel(&self) {
        self.pending.cancel(Cancel::Cooperative);
    }

    /// Ends the call now. What runs is killed with its worker, and ends as `Cancelled`.
    pub fn kill(&self) {
        self.pending.cancel(Cancel::Kill);
    }

    /// The same handle, which [cancels](Self::cancel) the call when it is dropped before that has
    /// ended. Without this, nobody waits for the call, and it goes on.
    ///
    /// A handle is dropped with the future that awaits it. So a timeout of the runtime ends the
    /// task as well: `tokio::time::timeout(d, pool.apply_async(f, x).kill_on_drop())`.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let handle = pool.apply_async(|x: u64| x * x, 12).cancel_on_drop();
    /// assert_eq!(handle.get().unwrap(), 144);
    /// ```
    pub fn cancel_on_drop(mut self) -> Self {
        self.pending.end_on_drop(Some(Cancel::Cooperative));
        self
    }

    /// The same handle, which [kills](Self::kill) what runs of the call when it is dropped before
    /// that has ended: see [`cancel_on_drop`](Self::cancel_on_drop).
    pub fn kill_on_drop(mut self) -> Self {
        self.pending.end_on_drop(Some(Cancel::Kill));
        self
    }

    /// How many items have failed, of what is there.
    pub(crate) fn failures(&self, counts_errors: bool) -> u64 {
        let outcome = self.pending.outcome();
        outcome.map_or(0, |outcome| C::failures(&outcome, counts_errors))
    }

    /// As `on_complete`, with how many items have failed, and nothing is decoded.
    pub(crate) fn on_end(&self, counts_errors: bool, callback: impl FnOnce(u64) + Send + 'static) {
        self.pending
            .on_complete(move |outcome| callback(C::failures(&outcome, counts_errors)));
    }
}

impl<T: FromOutcome<C>, C: ResultCell> Handle<T, C> {
    /// Waits for the outcome and returns it: the result, or why there is none. Every call ends, if
    /// only with its pool, so this does, unless a task never ends.
    #[allow(clippy::missing_errors_doc, reason = "`T` says whether it can fail")]
    pub fn get(mut self) -> T {
        let outcome = self.pending.take().or_else(|| {
            self.pending.wait();
            self.pending.take()
        });
        T::from_outcome(outcome.unwrap_or_else(|| C::failed(TaskError::closed())))
    }

    /// The same, but no longer than `timeout`; `None`: it was not there by then. It can be read
    /// again.
    pub fn get_timeout(&mut self, timeout: Duration) -> Option<T> {
        self.pending.wait_timeout(timeout);
        self.read()
    }

    /// Whether the call has ended with a value, and a map with all of them. `None`: it has not
    /// ended. It decodes the outcome to find out.
    #[must_use]
    pub fn is_successful(&self) -> Option<bool> {
        self.read().map(|value| value.is_success())
    }

    /// Calls `callback` once with the outcome, on a thread of the pool's made for that, where it
    /// may block, panic and use the pool. The outcome can still be read by the handle; each reads
    /// a value of its own.
    pub fn on_complete(&self, callback: impl FnOnce(&T) + Send + 'static) {
        self.pending
            .on_complete(move |outcome| callback(&T::from_shared(&outcome)));
    }

    fn read(&self) -> Option<T> {
        let outcome = self.pending.outcome()?;
        Some(T::from_shared(&outcome))
    }
}

impl<T: FromOutcome<C>, C: ResultCell> Future for Handle<T, C> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.pending.poll(context)
            && let Some(value) = self.read()
        {
            Poll::Ready(value)
        } else {
            Poll::Pending
        }
    }
}

impl<T, C: ResultCell> fmt::Debug for Handle<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("is_ready", &self.pending.is_ready())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<TaskHandle<std::rc::Rc<()>>>();
    assert::<MapHandle<std::rc::Rc<()>>>();
    assert::<MeasuredHandle<Measured<std::rc::Rc<()>>>>();
};
