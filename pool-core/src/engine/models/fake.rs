//! Workers that are threads, and what a pool needs to have them for workers.

use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::api::pool::Pool;
use crate::sys::fd::OwnedFd;
use crate::task::executor::Executor;

/// A pool in a model.
pub(super) struct ModelPool {
    pub(super) executor: Arc<dyn Executor>,
}

impl Pool for ModelPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

/// The two ends of a doorbell: the parent's and the worker's.
pub(super) fn doorbell() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("descriptors")
}

/// Lets the clock's thread run only when no other can: time passes when everybody sleeps.
#[cfg(shuttle)]
pub(super) struct ClockLast<S>(S);

#[cfg(shuttle)]
impl<S> ClockLast<S> {
    pub(super) fn new(scheduler: S) -> Self {
        Self(scheduler)
    }
}

#[cfg(shuttle)]
impl<S: shuttle::scheduler::Scheduler> shuttle::scheduler::Scheduler for ClockLast<S> {
    fn new_execution(&mut self) -> Option<shuttle::scheduler::Schedule> {
        self.0.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&shuttle::scheduler::Task],
        current: Option<shuttle::scheduler::TaskId>,
        is_yielding: bool,
    ) -> Option<shuttle::scheduler::TaskId> {
        // The first thread that a model starts.
        let clock = shuttle::scheduler::TaskId::from(1);
        let others: Vec<_> = runnable
            .iter()
            .copied()
            // Shuttle may wake threads for no reason, which would hide that nobody else does.
            .filter(|task| task.id() != clock && !task.blocked())
            .collect();
        if others.is_empty() {
            return Some(clock);
        }
        self.0.next_task(&others, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}
