//! The handle of a call that runs in the background and gives metrics.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::Measured;
use crate::api::handle::{Collector, Pending};
use crate::task::chunk::ChunkOutcome;
use crate::task::executor::Cancel;

/// What the outcomes of a call with metrics are read as: one [`Measured`], or a vector of them.
pub trait Collected: private::Read {}

impl<R: DeserializeOwned + 'static> Collected for Measured<R> {}
impl<R: DeserializeOwned + 'static> Collected for Vec<Measured<R>> {}

mod private {
    use std::sync::Arc;

    use crate::task::chunk::ChunkOutcome;

    pub trait Read: Sized {
        #[doc(hidden)]
        #[allow(private_interfaces, reason = "nobody else can call it")]
        fn read(pieces: Vec<Arc<ChunkOutcome>>) -> Self;
    }
}

#[allow(private_interfaces, reason = "as in the trait")]
impl<R: DeserializeOwned + 'static> private::Read for Measured<R> {
    fn read(mut pieces: Vec<Arc<ChunkOutcome>>) -> Self {
        Self::read_one(pieces.pop())
    }
}

#[allow(private_interfaces, reason = "as in the trait")]
impl<R: DeserializeOwned + 'static> private::Read for Vec<Measured<R>> {
    fn read(mut pieces: Vec<Arc<ChunkOutcome>>) -> Self {
        pieces.sort_unstable_by_key(|piece| piece.first);
        let mut all = Self::with_capacity(pieces.iter().map(|piece| piece.count as usize).sum());
        for piece in pieces {
            Measured::read_all(piece, &mut all);
        }
        all
    }
}

/// A call with metrics that runs in the background. `T` is what it gives: a [`Measured`], or a
/// vector of them. See [`TaskHandle`](crate::TaskHandle), which it is like in all else: dropping it
/// changes nothing for the call.
#[must_use = "a handle is how the result is read; `drop` it to say that nobody wants it"]
pub struct MeasuredHandle<T> {
    pending: Pending<Collector>,
    result: PhantomData<fn() -> T>,
}

impl<T: Collected> MeasuredHandle<T> {
    pub(super) fn new(pending: Pending<Collector>) -> Self {
        Self {
            pending,
            result: PhantomData,
        }
    }

    /// Waits for everything, and returns it.
    pub fn get(self) -> T {
        self.pending.wait();
        T::read(self.pending.take())
    }

    /// The same, but waits no longer than `timeout`; `None`: it was not all there by then.
    pub fn get_timeout(&mut self, timeout: Duration) -> Option<T> {
        let is_ready = self.pending.wait_timeout(timeout);
        is_ready.then(|| T::read(self.pending.pieces()))
    }

    /// Waits until everything is there.
    pub fn wait(&self) {
        self.pending.wait();
    }

    /// The same, but no longer than `timeout`, and says whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.pending.wait_timeout(timeout)
    }

    /// Whether everything is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pending.is_ready()
    }

    /// Ends the call early: see [`TaskHandle::cancel`](crate::TaskHandle::cancel).
    pub fn cancel(&self) {
        self.pending.cancel(Cancel::Cooperative);
    }

    /// The same by force: see [`TaskHandle::kill`](crate::TaskHandle::kill).
    pub fn kill(&self) {
        self.pending.cancel(Cancel::Kill);
    }

    /// Calls `callback` with everything when it is there: see
    /// [`TaskHandle::on_complete`](crate::TaskHandle::on_complete).
    pub fn on_complete(&self, callback: impl FnOnce(&T) + Send + 'static) {
        self.pending
            .on_complete(move |pieces| callback(&T::read(pieces)));
    }
}

impl<T: Collected> MeasuredHandle<T> {
    /// As `on_complete`, with how many items have failed.
    pub(super) fn on_end(&self, callback: impl FnOnce(u64) + Send + 'static) {
        self.pending.on_complete(move |pieces| {
            callback(pieces.iter().map(|piece| piece.failures() as u64).sum());
        });
    }
}

impl<T: Collected> Future for MeasuredHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.pending.poll(context) {
            Poll::Ready(T::read(self.pending.pieces()))
        } else {
            Poll::Pending
        }
    }
}

impl<T> fmt::Debug for MeasuredHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasuredHandle")
            .field("is_ready", &self.pending.is_ready())
            .finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<MeasuredHandle<Measured<std::rc::Rc<()>>>>();
};
