//! A call that was submitted, whatever its outcome is read as.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::result_cell::ResultCell;
use crate::error::task_error::TaskError;
use crate::sys;
use crate::task::executor::{Cancel, Executor};

/// A call that was submitted.
pub(crate) struct Pending<C: ResultCell> {
    cell: Arc<C>,
    executor: Arc<dyn Executor>,
    /// The cell may have a future's waker.
    was_polled: bool,
    /// How the call ends when nobody wants its outcome any more; `None`: it goes on.
    on_drop: Option<Cancel>,
}

impl<C: ResultCell> Pending<C> {
    pub(crate) fn new(cell: Arc<C>, executor: Arc<dyn Executor>) -> Self {
        Self {
            cell,
            executor,
            was_polled: false,
            on_drop: None,
        }
    }

    /// What every call is answered with in a fork of the process that the pool belongs to: there,
    /// no outcome ever arrives, and another thread may have had the cell at the moment of the fork.
    pub(crate) fn refusal(&self) -> Option<TaskError> {
        self.executor.is_foreign().then(TaskError::of_fork)
    }

    /// Waits for the outcome. It ends with the task, or with the pool.
    pub(crate) fn wait(&self) {
        self.wait_until(None);
    }

    pub(crate) fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(sys::now().checked_add(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        if self.is_ready() {
            return true;
        }
        let cell = &*self.cell;
        self.executor
            .wait_until(&mut |waker| cell.poll(waker), deadline)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.executor.is_foreign() || self.cell.is_ready()
    }

    /// The outcome, if it is there.
    pub(crate) fn outcome(&self) -> Option<C::Outcome> {
        match self.refusal() {
            Some(error) => Some(C::failed(error)),
            None => self.cell.outcome(),
        }
    }

    /// The same for the last caller.
    #[inline]
    pub(super) fn take(&mut self) -> Option<C::Outcome> {
        if let Some(error) = self.refusal() {
            return Some(C::failed(error));
        }
        match Arc::get_mut(&mut self.cell) {
            Some(own) => own.take_own(),
            None => self.cell.take(),
        }
    }

    pub(crate) fn poll(&mut self, context: &Context<'_>) -> bool {
        if self.executor.is_foreign() {
            return true;
        }
        self.was_polled = true;
        self.cell.poll_as_future(context.waker())
    }

    /// When nobody wants the outcome any more, the call ends like this; `None`: it goes on.
    pub(crate) fn end_on_drop(&mut self, how: Option<Cancel>) {
        self.on_drop = how;
    }

    /// Whether this process is a fork of the one that the pool belongs to.
    pub(crate) fn is_foreign(&self) -> bool {
        self.executor.is_foreign()
    }

    /// Waits for something else that the pool brings.
    pub(crate) fn wait_for(&self, poll: &mut dyn FnMut(Option<&Waker>) -> bool) {
        self.executor.wait_until(poll, None);
    }

    pub(crate) fn cancel(&self, how: Cancel) {
        if self.is_ready() {
            return;
        }
        self.cell.abandon();
        if !self.executor.cancel(self.cell.call(), how) {
            self.cell.fail_unless_ready(TaskError::cancelled());
        }
    }

    pub(crate) fn on_complete(&self, callback: impl FnOnce(C::Outcome) + Send + 'static) {
        if let Some(error) = self.refusal() {
            // The thread that callbacks run on is not in this process.
            return callback(C::failed(error));
        }
        let executor = self.executor.clone();
        self.cell.on_complete(Box::new(move |outcome| {
            executor.spawn_callback(Box::new(move || callback(outcome)));
        }));
    }
}

impl<C: ResultCell> Drop for Pending<C> {
    fn drop(&mut self) {
        if let Some(how) = self.on_drop {
            self.cancel(how);
        }
        // The task goes on, perhaps for long, and what has polled need not stay in memory.
        if self.was_polled && !self.executor.is_foreign() {
            self.cell.forget_future();
        }
    }
}
