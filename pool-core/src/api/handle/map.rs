//! The handle of a map.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::result_cell::Collector;
use super::{AllOrFirst, Pending, decode_all};
use crate::error::task_error::TaskError;
use crate::task::chunk::ChunkOutcome;
use crate::task::executor::Cancel;

/// A map that runs in the background: what [`map_async`](crate::Pool::map_async) returns.
///
/// It is to all the results what a [`TaskHandle`](crate::TaskHandle) is to one: the result is
/// the vector of all, or the error of the item with the lowest index that failed.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let handle = pool.map_async(|x: u64| x * x, 1..4);
/// assert_eq!(handle.get().unwrap(), [1, 4, 9]);
/// ```
#[must_use = "a handle is how the results are read; `drop` it to say that nobody wants them"]
pub struct MapHandle<R> {
    pending: Pending<Collector>,
    result: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned + 'static> MapHandle<R> {
    pub(crate) fn new(pending: Pending<Collector>) -> Self {
        Self {
            pending,
            result: PhantomData,
        }
    }

    /// Waits for the results and returns them in the order of the items.
    ///
    /// # Errors
    /// When an item failed: the error of the one with the lowest index. The others were run all
    /// the same.
    pub fn get(self) -> Result<Vec<R>, TaskError> {
        self.pending.wait();
        self.read()
    }

    /// The same, but no longer than `timeout`; `None`: they were not all there by then. The
    /// results can be read again.
    pub fn get_timeout(&mut self, timeout: Duration) -> Option<Result<Vec<R>, TaskError>> {
        self.pending.wait_timeout(timeout).then(|| self.read())
    }

    /// Waits until every item has ended.
    pub fn wait(&self) {
        self.pending.wait();
    }

    /// Waits until every item has ended, but no longer than `timeout`; `false`: they had not.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.pending.wait_timeout(timeout)
    }

    /// Whether every item has ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.is_ready()
    }

    /// Whether every item has ended with a value. `None`: not all have ended. It decodes the
    /// results to find out.
    #[must_use]
    pub fn is_successful(&self) -> Option<bool> {
        self.is_ready().then(|| self.read().is_ok())
    }

    /// Ends the map early. Items that have not begun are not run and end as `Cancelled`; those
    /// that run are asked: [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to
    /// them, and whatever they return, they end as `Cancelled` too.
    pub fn cancel(&self) {
        self.pending.cancel(Cancel::Cooperative);
    }

    /// Ends the map now. Items that run are killed with their workers, and end as `Cancelled`.
    pub fn kill(&self) {
        self.pending.cancel(Cancel::Kill);
    }

    /// Calls `callback` once with the results; see
    /// [`TaskHandle::on_complete`](crate::TaskHandle::on_complete).
    pub fn on_complete(&self, callback: impl FnOnce(&Result<Vec<R>, TaskError>) + Send + 'static) {
        self.pending
            .on_complete(move |pieces| callback(&read(pieces)));
    }

    fn read(&self) -> Result<Vec<R>, TaskError> {
        read(self.pending.pieces())
    }
}

/// The values of all items, in order, or the first error.
fn read<R: DeserializeOwned + 'static>(
    mut pieces: Vec<Arc<ChunkOutcome>>,
) -> Result<Vec<R>, TaskError> {
    pieces.sort_unstable_by_key(|piece| piece.first);
    let count = pieces.iter().map(|piece| piece.count as usize).sum();
    let mut all = AllOrFirst::with_capacity(count);
    for piece in pieces {
        decode_all(&piece, &mut all);
    }
    all.into_result()
}

impl<R: DeserializeOwned + 'static> Future for MapHandle<R> {
    type Output = Result<Vec<R>, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.poll(context) {
            Poll::Ready(self.read())
        } else {
            Poll::Pending
        }
    }
}

impl<R> fmt::Debug for MapHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapHandle")
            .field("is_ready", &self.pending.is_ready())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<MapHandle<std::rc::Rc<()>>>();
};
