//! What is known of the death of a worker.

use std::borrow::Cow;

use crate::error::task_error::{Shortage, TaskError};
use crate::process::exit_status::ExitStatus;
use crate::process::worker_info::WorkerInfo;

/// What is known of a worker's death.
pub(super) struct Death {
    /// `None`: it was killed, and is not dead yet.
    pub(super) exit: Option<ExitStatus>,
    /// It died of that.
    pub(super) shortage: Option<Shortage>,
    pub(super) info: WorkerInfo,
    /// The last lines that it has written to standard error.
    pub(super) stderr: Option<String>,
}

impl Death {
    /// The error of what was lost by it.
    pub(super) fn explain(self, error: TaskError) -> TaskError {
        let error = match self.exit {
            Some(exit) => error.with_exit(exit),
            None => error,
        };
        error.with_worker(self.info).with_stderr(self.stderr)
    }
}

/// What became of a worker; completes "the worker …".
pub(super) fn fate(exit: Option<ExitStatus>) -> Cow<'static, str> {
    match exit {
        Some(exit) => exit.to_string().into(),
        None => "was killed (the system has yet to let go of it)".into(),
    }
}
