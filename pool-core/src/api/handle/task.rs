//! The handle of a single task.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::result_cell::SingleResult;
use super::{Pending, decode_bytes, decode_owned};
use crate::error::task_error::TaskError;
use crate::task::bytes::Bytes;
use crate::task::executor::Cancel;

/// A task that runs in the background: what [`apply_async`](crate::Pool::apply_async) returns.
///
/// It can be waited for, awaited, asked, cancelled and sent to other threads. Dropping it unread
/// changes nothing for the task.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let handle = pool.apply_async(|x: u64| x * x, 12);
/// assert_eq!(handle.get().unwrap(), 144);
/// ```
#[must_use = "a handle is how the result is read; `drop` it to say that nobody wants it"]
pub struct TaskHandle<R> {
    pending: Pending<SingleResult>,
    result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned + 'static> TaskHandle<R> {
    pub(crate) fn new(pending: Pending<SingleResult>) -> Self {
        Self {
            pending,
            result: PhantomData,
        }
    }

    /// Waits for the result and returns it. Every task ends, if only with its pool, so this
    /// does, unless the task never ends.
    ///
    /// # Errors
    /// When the task failed.
    pub fn get(self) -> Result<R, TaskError> {
        if let Some(error) = self.pending.refusal() {
            return Err(error);
        }
        let cell = &self.pending.cell;
        let outcome = cell.take().or_else(|| {
            self.pending.wait();
            cell.take()
        });
        decode_owned(outcome.unwrap_or_else(|| Err(TaskError::closed()))?)
    }

    /// The same, but no longer than `timeout`; `None`: it was not there by then. A result can be
    /// read again.
    pub fn get_timeout(&mut self, timeout: Duration) -> Option<Result<R, TaskError>> {
        self.pending.wait_timeout(timeout);
        self.outcome().map(|outcome| read(&outcome))
    }

    /// Waits until the task has ended.
    pub fn wait(&self) {
        self.pending.wait();
    }

    /// Waits until the task has ended, but no longer than `timeout`; `false`: it had not by then.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.pending.wait_timeout(timeout)
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.is_ready()
    }

    /// Whether the task has ended with a value. `None`: it has not ended. It decodes the result
    /// to find out.
    #[must_use]
    pub fn is_successful(&self) -> Option<bool> {
        let outcome = self.outcome()?;
        Some(read::<R>(&outcome).is_ok())
    }

    /// Ends the task early. One that has not begun is not run and ends as `Cancelled` at once; one
    /// that runs is asked: [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to it,
    /// and when it returns it ends as `Cancelled` too, whatever it returns.
    pub fn cancel(&self) {
        self.pending.cancel(Cancel::Cooperative);
    }

    /// Ends the task now. One that runs is killed with its worker, and ends as `Cancelled`.
    pub fn kill(&self) {
        self.pending.cancel(Cancel::Kill);
    }

    /// Calls `callback` once with the result, on a thread of the pool's made for that, where it
    /// may block, panic and use the pool. The result can still be read by the handle; each reads
    /// a value of its own.
    pub fn on_complete(&self, callback: impl FnOnce(&Result<R, TaskError>) + Send + 'static) {
        self.pending
            .on_complete(move |outcome| callback(&read(&outcome)));
    }
}

impl<R> TaskHandle<R> {
    /// The outcome, if it is there.
    fn outcome(&self) -> Option<Result<Bytes, TaskError>> {
        match self.pending.refusal() {
            Some(error) => Some(Err(error)),
            None => self.pending.cell.outcome(),
        }
    }

    /// As `on_complete`, with what is not decoded.
    pub(crate) fn on_end(&self, callback: impl FnOnce(Result<Bytes, TaskError>) + Send + 'static) {
        self.pending.on_complete(callback);
    }
}

fn read<R: DeserializeOwned + 'static>(outcome: &Result<Bytes, TaskError>) -> Result<R, TaskError> {
    match outcome {
        Ok(bytes) => decode_bytes(bytes),
        Err(error) => Err(error.clone()),
    }
}

impl<R: DeserializeOwned + 'static> Future for TaskHandle<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.poll(context)
            && let Some(outcome) = self.outcome()
        {
            Poll::Ready(read(&outcome))
        } else {
            Poll::Pending
        }
    }
}

impl<R> fmt::Debug for TaskHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("is_ready", &self.pending.is_ready())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<TaskHandle<std::rc::Rc<()>>>();
};
