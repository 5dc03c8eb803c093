//! What a pool is built from.

use std::time::Duration;

use super::lifecycle_options::{LifecycleOptions, ValidatedLifecycle};
use super::worker_options::WorkerOptions;
use crate::broadcast::Attachments;
use crate::error::build_error::{BuildError, BuildErrorKind};
use crate::observe::output::Output;
use crate::shm::region::RingSizes;
use crate::worker::function::FunctionId;

/// The options that every pool of processes has, as the builder was given them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolConfig {
    processes: Option<usize>,
    pub(crate) workers: WorkerOptions,
    pub(crate) lifecycle: LifecycleOptions,
    stdout: Output,
    stderr: Output,
    forward_events: bool,
    #[cfg(feature = "tracing")]
    forward_spans: bool,
    max_queued: Option<usize>,
}

/// A config whose values make sense.
#[derive(Debug)]
pub(crate) struct ValidatedConfig {
    pub(crate) processes: usize,
    /// The initializer and its argument as an item.
    pub(crate) initializer: Option<(FunctionId, Vec<u8>)>,
    /// The memory that handles in that argument mean.
    pub(crate) attachments: Attachments,
    pub(crate) finalizer: Option<FunctionId>,
    pub(crate) max_tasks_per_child: Option<u64>,
    pub(crate) rings: RingSizes,
    pub(crate) max_result_bytes: u64,
    pub(crate) launch_timeout: Duration,
    pub(crate) lifecycle: ValidatedLifecycle,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) forward_events: bool,
    #[cfg(feature = "tracing")]
    pub(crate) forward_spans: bool,
    pub(crate) max_queued: Option<usize>,
}

/// More workers than this are a mistake in a unit: it is more processes than Linux allows.
const MAX_PROCESSES: usize = 1 << 15;

impl PoolConfig {
    pub(crate) fn set_processes(&mut self, processes: usize) {
        self.processes = Some(processes);
    }

    pub(crate) fn set_max_queued(&mut self, tasks: usize) {
        self.max_queued = Some(tasks);
    }

    pub(crate) fn set_stdout(&mut self, output: Output) {
        self.stdout = output;
    }

    pub(crate) fn set_stderr(&mut self, output: Output) {
        self.stderr = output;
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn set_forward_events(&mut self) {
        self.forward_events = true;
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn set_forward_spans(&mut self) {
        self.forward_events = true;
        self.forward_spans = true;
    }

    pub(crate) fn check(self) -> Result<ValidatedConfig, BuildError> {
        let invalid = |message: String| BuildError::new(BuildErrorKind::InvalidConfig, message);
        let processes = match self.processes {
            Some(processes) => processes,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        check_processes(processes).map_err(&invalid)?;
        if self.max_queued == Some(0) {
            return Err(invalid(
                "max_queued is 0: a task must wait somewhere until a worker has it (leave the \
                 option out for no limit)"
                    .into(),
            ));
        }
        let workers = self.workers.validate().map_err(&invalid)?;
        let lifecycle = self.lifecycle.check(
            processes,
            workers.settings,
            workers.max_memory,
            workers.max_age,
        );
        Ok(ValidatedConfig {
            processes,
            initializer: workers.initializer,
            attachments: workers.attachments,
            finalizer: workers.finalizer,
            max_tasks_per_child: workers.max_tasks_per_child,
            rings: workers.rings,
            max_result_bytes: workers.max_result_bytes,
            launch_timeout: workers.launch_timeout,
            lifecycle: lifecycle.map_err(invalid)?,
            stdout: self.stdout,
            stderr: self.stderr,
            forward_events: self.forward_events,
            #[cfg(feature = "tracing")]
            forward_spans: self.forward_spans,
            max_queued: self.max_queued,
        })
    }
}

/// Whether a pool can have this many processes; the error says why not.
pub(crate) fn check_processes(processes: usize) -> Result<(), String> {
    match processes {
        0 => Err("processes is 0: a pool needs at least one".into()),
        1..=MAX_PROCESSES => Ok(()),
        _ => Err(format!(
            "processes is {processes}: the most is {MAX_PROCESSES}"
        )),
    }
}
