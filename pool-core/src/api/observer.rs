//! What happens in a pool, for a program that wants to see it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::task_error::TaskError;
use crate::observe::event_queue::{EventQueue, Taken};
use crate::observe::task_metrics::TaskMetrics;
use crate::observe::trace::Event;
use crate::observe::tracer::{Observe, Tracer};
use crate::observe::worker_exit::ExitReason;
use crate::process::fork;
use crate::process::worker_info::WorkerInfo;
use crate::sys;
use crate::task::executor::Executor;

/// Something that has happened in a pool. Times are those since the [`Observer`] came; what was
/// before is at zero.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A worker is up.
    WorkerUp {
        /// Which one.
        worker: WorkerInfo,
        /// Its place in the pool, counted from 0: its successor has the same.
        position: usize,
        /// Since when.
        at: Duration,
    },
    /// A worker has ended.
    WorkerEnded {
        /// Which one.
        worker: WorkerInfo,
        /// Why.
        reason: ExitReason,
        /// When the pool heard of it.
        at: Duration,
    },
    /// The sandbox of a worker has refused a system call, and the worker lives.
    CallRefused {
        /// Which worker.
        worker: WorkerInfo,
        /// The name of the system call.
        call: String,
        /// When the pool heard of it.
        at: Duration,
    },
    /// A worker has done a chunk of items, one or many: only with [`Observe::Chunks`], if it took
    /// so long.
    ChunkEnded {
        /// Which worker.
        worker: WorkerInfo,
        /// The [name](crate::Call::name) of its call: that of the function, if it has no other.
        call: Cow<'static, str>,
        /// Which item of the call was the first, counted from 0.
        first: usize,
        /// How many there were.
        items: usize,
        /// How long it took, by the worker's word.
        took: Duration,
        /// When the pool heard of it.
        at: Duration,
    },
    /// An item has its outcome: with [`Observe::Items`], and with [`Observe::Chunks`] if it has
    /// failed.
    ItemEnded {
        /// The [name](crate::Call::name) of its call: that of the function, if it has no other.
        call: Cow<'static, str>,
        /// Which item of its call, counted from 0.
        index: usize,
        /// Why it has failed, if it has.
        error: Option<TaskError>,
        /// When a worker began it, if one did.
        began: Option<Duration>,
        /// What it took, as far as it is known: of an item that was not measured, nothing is.
        metrics: Box<TaskMetrics>,
        /// When the pool had the outcome.
        at: Duration,
    },
}

/// Sees what happens in a pool: what [`Pool::observe`](crate::Pool::observe) returns. It sees
/// nothing any more when it is dropped.
///
/// Events wait for it, up to 65,536. Those beyond are [dropped](Self::dropped), so that the pool
/// never waits for who observes it.
#[must_use = "it sees nothing when it is dropped"]
pub struct Observer {
    tracer: Tracer,
    queue: Arc<EventQueue>,
    taken: Taken,
    /// What was taken and not handed out, the next event last.
    next: Vec<Event>,
    dropped: u64,
    fork_depth: usize,
}

impl Observer {
    pub(crate) fn new(executor: &dyn Executor, what: Observe) -> io::Result<Self> {
        let tracer = executor.tracer()?.clone();
        let queue = Arc::new(EventQueue::default());
        tracer.observe(&queue, what);
        Ok(Self {
            tracer,
            queue,
            taken: Taken::default(),
            next: Vec::new(),
            dropped: 0,
            fork_depth: fork::depth(),
        })
    }

    /// The next event, if there is one.
    pub fn try_recv(&mut self) -> Option<PoolEvent> {
        self.recv_timeout(Duration::ZERO)
    }

    /// The next event. `None`: none has come in so much time, which is forever where it is
    /// [`Duration::MAX`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<PoolEvent> {
        if self.next.is_empty() {
            if self.fork_depth != fork::depth() {
                // The copy in a forked process, in which nothing happens.
                return None;
            }
            // A time that is too far to be told never comes.
            let until = sys::now().checked_add(timeout);
            self.queue.take(&mut self.taken, until);
            self.dropped += self.taken.dropped;
            self.next.extend(self.taken.events.drain(..).rev());
        }
        let start = self.queue.start;
        self.next.pop().map(|event| PoolEvent::new(event, start))
    }

    /// What ends a wait for the next event, from another thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle {
            queue: self.queue.clone(),
        }
    }

    /// Whether it was [stopped](StopHandle::stop), and there is nothing left to take.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.taken.is_last && self.next.is_empty()
    }

    /// How many events were dropped so far, since too many had come that were not taken.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Stops an [`Observer`]: see [`Observer::stop_handle`].
#[derive(Clone)]
pub struct StopHandle {
    queue: Arc<EventQueue>,
}

impl StopHandle {
    /// From now on, nothing comes that has not come yet, and no wait for it takes any time.
    pub fn stop(&self) {
        self.queue.finish();
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopHandle").finish_non_exhaustive()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if self.fork_depth == fork::depth() {
            self.tracer.leave(&self.queue);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl PoolEvent {
    fn new(event: Event, start: u64) -> Self {
        let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(start));
        match event {
            Event::WorkerUp {
                worker,
                position,
                at,
            } => Self::WorkerUp {
                worker,
                position,
                at: since(at),
            },
            Event::WorkerEnded { worker, reason, at } => Self::WorkerEnded {
                worker,
                reason,
                at: since(at),
            },
            Event::CallRefused { worker, call, at } => Self::CallRefused {
                worker,
                call: call.into_owned(),
                at: since(at),
            },
            Event::Chunk {
                worker,
                call,
                first,
                items,
                took,
                at,
            } => Self::ChunkEnded {
                worker,
                call,
                first,
                items: items as usize,
                took: Duration::from_nanos(took),
                at: since(at),
            },
            Event::Item {
                call,
                index,
                error,
                submitted,
                attempt,
                argument_bytes,
                run,
                at,
            } => {
                let mut metrics = TaskMetrics {
                    attempt,
                    argument_bytes,
                    ..TaskMetrics::default()
                };
                let began = run.as_ref().map(|run| run.measure.begun);
                if let Some(run) = &run {
                    metrics.add(run, submitted);
                }
                Self::ItemEnded {
                    call,
                    index,
                    error,
                    began: began.filter(|began| *began != 0).map(since),
                    metrics: Box::new(metrics),
                    at: since(at),
                }
            }
        }
    }
}
