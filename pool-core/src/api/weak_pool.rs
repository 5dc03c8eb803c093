//! A pool that is looked at and not kept.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use super::observer::Observer;
use crate::error::build_error::ResizeError;
use crate::observe::dump::{Dump, WorkerDump};
use crate::observe::running_calls::{CallStatus, RunningCall};
use crate::observe::stats::Stats;
use crate::observe::tracer::Observe;
use crate::sys;
use crate::task::call_id::CallId;
use crate::task::executor::{Cancel, Executor};

/// A handle of a pool that does not keep it alive: what
/// [`Pool::downgrade`](crate::Pool::downgrade) returns.
///
/// It is for who looks at a pool that others use: a dashboard, or a monitor in a thread of its own.
/// Of a pool that is no more, it says nothing.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let weak = pool.downgrade();
/// pool.map(|x: u64| x * x, 0..10).unwrap();
/// assert_eq!(weak.stats().unwrap().succeeded, 10);
/// drop(pool);
/// assert!(weak.stats().is_none() && weak.is_gone());
/// ```
#[derive(Clone)]
pub struct WeakPool {
    executor: Weak<dyn Executor>,
}

impl WeakPool {
    pub(crate) fn new(executor: &Arc<dyn Executor>) -> Self {
        Self {
            executor: Arc::downgrade(executor),
        }
    }

    /// Whether the pool is no more: its last clone was dropped, and so was each handle of its
    /// calls.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.executor.strong_count() == 0
    }

    /// Its [counters](crate::Pool::stats). `None`: it is no more.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        Some(self.executor.upgrade()?.stats())
    }

    /// What its workers are [doing right now](crate::Pool::dump). `None`: it is no more.
    #[must_use]
    pub fn dump(&self) -> Option<Dump> {
        Some(self.executor.upgrade()?.dump())
    }

    /// The same of each worker, as far as is known without asking it: no stacks, and not what the
    /// kernel says. It may be asked several times a second. A pool of many machines asks these,
    /// and so takes the time of an answer. `None`: the pool is no more.
    #[must_use]
    pub fn activity(&self) -> Option<Vec<WorkerDump>> {
        Some(self.executor.upgrade()?.activity())
    }

    /// How many tasks can run at the same time: 0 if it is no more.
    #[must_use]
    pub fn processes(&self) -> usize {
        (self.executor.upgrade()).map_or(0, |executor| executor.processes())
    }

    /// How far its calls are that have many items and have not ended, the oldest first. They are
    /// known from when they are made until all items have ended, or soon after their handle or
    /// iterator was dropped. Single tasks are not among them: [`stats`](Self::stats) counts these.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let weak = pool.downgrade();
    /// let mut roots = pool.call(f64::sqrt).name("roots").imap([4.0, 9.0]);
    /// assert_eq!(roots.next(), Some(Ok(2.0)));
    /// let calls = weak.calls();
    /// assert_eq!((&*calls[0].name, calls[0].total, calls[0].ended), ("roots", Some(2), 1));
    /// ```
    #[must_use]
    pub fn calls(&self) -> Vec<CallStatus> {
        let Some(executor) = self.executor.upgrade() else {
            return Vec::new();
        };
        running_calls(&*executor)
            .map(|(status, _)| status)
            .collect()
    }

    /// Cancels one of these [calls](Self::calls), as its handle does: what has not begun is not
    /// run, and what runs is asked to stop. `false`: it has ended.
    pub fn cancel(&self, number: u64) -> bool {
        let Some(executor) = self.executor.upgrade() else {
            return false;
        };
        let found = running_calls(&*executor).find(|(status, _)| status.number == number);
        let Some((_, call)) = found else {
            return false;
        };
        call.abandon();
        executor.cancel(CallId::from_u64(number), Cancel::Cooperative);
        true
    }

    /// Makes it [larger or smaller](crate::Pool::resize).
    ///
    /// # Errors
    /// As there, and when it is no more.
    pub fn resize(&self, processes: usize) -> Result<(), ResizeError> {
        match self.executor.upgrade() {
            Some(executor) => executor.resize(processes),
            None => Err(ResizeError::closed()),
        }
    }

    /// Sees [what happens in it](crate::Pool::observe) from now on.
    ///
    /// # Errors
    /// As there, and when it is no more.
    pub fn observe(&self, what: Observe) -> io::Result<Observer> {
        match self.executor.upgrade() {
            Some(executor) => Observer::new(&*executor, what),
            None => Err(io::Error::other("the pool is no more")),
        }
    }
}

/// The calls of many items that have not ended.
fn running_calls(
    executor: &dyn Executor,
) -> impl Iterator<Item = (CallStatus, Arc<dyn RunningCall>)> {
    let known = executor.tracer().map(|tracer| tracer.running_calls());
    let now = sys::now_ns();
    let known = known.unwrap_or_default().into_iter();
    known.filter_map(move |call| call.status(now))
}

impl fmt::Debug for WeakPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPool").finish_non_exhaustive()
    }
}
