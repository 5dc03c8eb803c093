//! Waiting for a pool's end without a thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use crate::error::build_error::JoinError;
use crate::sys;
use crate::task::executor::Executor;

/// The end of a pool as a future of any runtime: what [`Pool::join_async`](crate::Pool::join_async)
/// returns. To drop it changes nothing, and leaves nothing behind.
#[must_use = "a future does nothing unless it is awaited"]
pub struct JoinFuture {
    executor: Arc<dyn Executor>,
    /// What the executor wakes: of no other future, so that it can be forgotten.
    relay: Arc<Relay>,
    is_watched: bool,
    /// What a thread finds that waits, where the executor wakes nobody.
    joined: Option<Arc<OnceLock<Result<(), JoinError>>>>,
}

/// Wakes whoever has polled last.
#[derive(Default)]
struct Relay {
    waker: Mutex<Option<Waker>>,
}

impl Relay {
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        let mut place = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, waker)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = self.replace(None) {
            waker.wake();
        }
    }
}

impl JoinFuture {
    pub(crate) fn new(executor: Arc<dyn Executor>) -> Self {
        Self {
            executor,
            relay: Arc::default(),
            is_watched: false,
            joined: None,
        }
    }

    /// Lets the executor wake it. `false`: it does not.
    fn watch(&mut self) -> bool {
        // In a fork of the process, another thread may have had what it would ask for.
        if !self.executor.is_foreign() {
            self.is_watched = self.executor.watch_end(&self.relay.clone().into());
        }
        self.is_watched
    }

    fn forget(&mut self) {
        drop(self.relay.replace(None));
        if self.is_watched && !self.executor.is_foreign() {
            self.executor.unwatch_end(&self.relay.clone().into());
        }
        self.is_watched = false;
    }

    /// Waits in a thread of its own. That ends with the pool, also when this is dropped before.
    fn join_in_thread(&mut self) -> Poll<Result<(), JoinError>> {
        let joined = Arc::new(OnceLock::new());
        let (executor, relay, found) = (self.executor.clone(), self.relay.clone(), joined.clone());
        let join = move || {
            let _ = found.set(executor.join(None).map(|_| ()));
            relay.wake();
        };
        let thread = thread::Builder::new().name("procpool-join".into());
        match thread.spawn(join) {
            Ok(_) => {
                self.joined = Some(joined);
                Poll::Pending
            }
            // No thread is to be had: better here than never.
            Err(_) => Poll::Ready(self.executor.join(None).map(|_| ())),
        }
    }
}

impl Future for JoinFuture {
    type Output = Result<(), JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // First it is seen to that somebody wakes this, and then it is asked.
        drop(self.relay.replace(Some(context.waker().clone())));
        if let Some(joined) = &self.joined {
            return joined.get().cloned().map_or(Poll::Pending, Poll::Ready);
        }
        let is_watched = self.watch();
        match self.executor.join(Some(sys::now())) {
            Ok(false) if is_watched => Poll::Pending,
            Ok(false) => self.join_in_thread(),
            outcome => {
                self.forget();
                Poll::Ready(outcome.map(|_| ()))
            }
        }
    }
}

impl Drop for JoinFuture {
    fn drop(&mut self) {
        self.forget();
    }
}

impl fmt::Debug for JoinFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").finish_non_exhaustive()
    }
}

const _: () = {
    const fn assert<T: Send + Sync + Unpin>() {}
    assert::<JoinFuture>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pool::Pool;
    use crate::api::serial::SerialPool;
    use crate::worker::emitter::Emitter;

    static GATE: Mutex<()> = Mutex::new(());

    /// Whether it is ready or dropped.
    #[test]
    fn nothing_is_kept_of_a_future() {
        let pool = SerialPool::new();
        let closed = GATE.lock().expect("no panic");
        let pass = |(), _: &Emitter<u64>| drop(GATE.lock());
        let task = pool.call(pass).stream(());
        pool.close();
        let mut context = Context::from_waker(Waker::noop());
        let mut poll_and_drop = || {
            let mut end = pool.join_async();
            let relay = end.relay.clone();
            let outcome = Pin::new(&mut end).poll(&mut context);
            drop(end);
            assert_eq!(Arc::strong_count(&relay), 1);
            outcome.is_ready()
        };
        assert!(!poll_and_drop());
        drop(closed);
        task.result().expect("it has passed");
        pool.join().expect("it is closed");
        assert!(poll_and_drop());
    }
}
