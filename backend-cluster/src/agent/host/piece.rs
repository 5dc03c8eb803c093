//! A piece that waits for its pool, or runs in it.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use procpool_core::{
    Cancel, EncodedChunk, Executor, Outcome, OutcomeBatch, Submitted, TaskError, TaskErrorKind,
};

/// Takes the outcomes of a piece.
pub(super) type Sink = dyn Fn(OutcomeBatch) + Send + Sync;

/// Items that a client has here. To drop it changes nothing.
pub(crate) struct Running(pub(super) Arc<Piece>);

impl Running {
    /// Ends it early: what has not begun fails as cancelled, and what runs is asked to stop or
    /// killed.
    pub(crate) fn cancel(&self, how: Cancel) {
        self.0.cancel(how);
    }

    /// Waits for the next value that the item emits. `None`: it has ended, and all were taken.
    ///
    /// One task waits at a time: the waker of the last one is woken.
    pub(crate) fn poll_value(&self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.0.poll_value(context)
    }
}

/// See [`Running`].
pub(super) struct Piece {
    stage: Mutex<Stage>,
    machine: String,
    sink: Arc<Sink>,
}

enum Stage {
    /// There is no pool yet.
    Waiting {
        chunk: Box<EncodedChunk>,
        reader: Option<Waker>,
    },
    /// It is just being submitted, and then to be cancelled like this.
    Submitting {
        cancel: Option<Cancel>,
        reader: Option<Waker>,
    },
    Submitted(Arc<Submitted>),
    /// It has failed before there was a pool.
    Failed,
}

impl Piece {
    pub(super) fn new(chunk: EncodedChunk, machine: &str, sink: Arc<Sink>) -> Self {
        let stage = Stage::Waiting {
            chunk: Box::new(chunk),
            reader: None,
        };
        Self {
            stage: Mutex::new(stage),
            machine: machine.to_owned(),
            sink,
        }
    }

    /// There is a pool. `look` is given what comes of it before the client is.
    pub(super) fn submit(
        &self,
        executor: &Arc<dyn Executor>,
        look: impl Fn(&OutcomeBatch) + Send + Sync + 'static,
    ) {
        let mut stage = self.lock();
        let (chunk, reader) = match mem::replace(&mut *stage, Stage::Failed) {
            Stage::Waiting { chunk, reader } => (chunk, reader),
            // It was cancelled.
            other => {
                *stage = other;
                return;
            }
        };
        *stage = Stage::Submitting {
            cancel: None,
            reader,
        };
        drop(stage);
        let (sink, machine) = (self.sink.clone(), self.machine.clone());
        // The sink may be called in here, and cancel the piece.
        let submitted = Arc::new(chunk.batch_to(executor, move |batch| {
            look(&batch);
            sink(batch.with_machine(&machine));
        }));
        let new = Stage::Submitted(submitted.clone());
        let old = mem::replace(&mut *self.lock(), new);
        if let Stage::Submitting { cancel, reader } = old {
            if let Some(how) = cancel {
                submitted.cancel(how);
            }
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }

    /// There is none, for this reason. What was submitted goes on.
    pub(super) fn fail(&self, error: &TaskError) {
        let mut stage = self.lock();
        let (chunk, reader) = match mem::replace(&mut *stage, Stage::Failed) {
            Stage::Waiting { chunk, reader } => (chunk, reader),
            other => {
                *stage = other;
                return;
            }
        };
        drop(stage);
        let first = chunk.first_index();
        let batch = OutcomeBatch::failed(first..first + chunk.count(), error.clone());
        // A sink that panics all the same keeps nobody else waiting, as in a pool.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.sink)(batch)));
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn cancel(&self, how: Cancel) {
        let mut stage = self.lock();
        match &mut *stage {
            Stage::Waiting { .. } => {
                drop(stage);
                let kind = TaskErrorKind::Cancelled;
                self.fail(&super::error(&self.machine, kind, "the task was cancelled"));
            }
            // To be killed is more than to be asked.
            Stage::Submitting { cancel, .. } => {
                if *cancel != Some(Cancel::Kill) {
                    *cancel = Some(how);
                }
            }
            Stage::Submitted(submitted) => {
                let submitted = submitted.clone();
                drop(stage);
                submitted.cancel(how);
            }
            Stage::Failed => {}
        }
    }

    fn poll_value(&self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let mut stage = self.lock();
        let submitted = match &mut *stage {
            Stage::Waiting { reader, .. } | Stage::Submitting { reader, .. } => {
                *reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Stage::Submitted(submitted) => submitted.clone(),
            Stage::Failed => return Poll::Ready(None),
        };
        drop(stage);
        let value = submitted.poll_value(context);
        value.map(|it| it.map(|it| it.with_machine(&self.machine)))
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
