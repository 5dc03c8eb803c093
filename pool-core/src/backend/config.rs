//! What a pool is built from.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lifecycle_options::{LifecycleOptions, ValidatedLifecycle};
use crate::broadcast::Attachments;
use crate::codec;
use crate::error::build_error::{BuildError, BuildErrorKind};
use crate::observe::output::Output;
use crate::panic::catch::catch;
use crate::shm::protocol;
use crate::shm::region::{RING_BYTES, RingSizes};
use crate::worker::function::{FunctionId, Stateless};
use crate::worker::initializer::{Begun, InitializerOutcome, beginning};

/// The options that every pool of processes has, as the builder was given them.
#[derive(Debug, Clone)]
pub(crate) struct PoolConfig {
    processes: Option<usize>,
    initializer: Option<Initializer>,
    finalizer: Option<Result<FunctionId, String>>,
    max_tasks_per_child: Option<u64>,
    ring_capacity: usize,
    max_result_bytes: u64,
    launch_timeout: Duration,
    pub(crate) lifecycle: LifecycleOptions,
    stdout: Output,
    stderr: Output,
    forward_events: bool,
    max_queued: Option<usize>,
}

/// A function to run first in each worker, with its argument.
#[derive(Debug, Clone)]
struct Initializer {
    entry: Result<FunctionId, String>,
    argument: Result<Vec<u8>, String>,
    /// The memory that handles in it mean.
    attachments: Attachments,
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
    pub(crate) max_queued: Option<usize>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            processes: None,
            initializer: None,
            finalizer: None,
            max_tasks_per_child: None,
            ring_capacity: 256 * 1024,
            max_result_bytes: 4 << 30,
            launch_timeout: Duration::from_secs(10),
            lifecycle: LifecycleOptions::default(),
            stdout: Output::default(),
            stderr: Output::default(),
            forward_events: false,
            max_queued: None,
        }
    }
}

/// More workers than this are a mistake in a unit: it is more processes than Linux allows.
const MAX_PROCESSES: usize = 1 << 15;

impl PoolConfig {
    pub(crate) fn set_processes(&mut self, processes: usize) {
        self.processes = Some(processes);
    }

    pub(crate) fn set_initializer<F, A, R>(&mut self, initializer: F, argument: &A)
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome,
    {
        let mut item = Vec::new();
        let mut attachments = Attachments::default();
        let encoded = catch(|| {
            protocol::append_item(&mut item, |out| {
                codec::encode_attached(argument, out, &mut attachments)
            })
            .map_err(|error| error.to_string())
        });
        self.initializer = Some(Initializer {
            entry: FunctionId::of::<_, A, Begun>(&beginning(initializer))
                .map_err(|error| error.to_string()),
            argument: match encoded {
                Ok(Ok(())) => Ok(item),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.message),
            },
            attachments,
        });
    }

    pub(crate) fn set_finalizer<F: Fn() + Stateless>(&mut self, finalizer: F) {
        // Called through a closure that captures it, which is of no size if `finalizer` is.
        fn entry<F: Fn(()) + Stateless>(function: &F) -> Result<FunctionId, String> {
            FunctionId::of::<F, (), ()>(function).map_err(|error| error.to_string())
        }
        self.finalizer = Some(entry(&move |()| finalizer()));
    }

    pub(crate) fn set_max_tasks_per_child(&mut self, tasks: u64) {
        self.max_tasks_per_child = Some(tasks);
    }

    pub(crate) fn set_ring_capacity(&mut self, bytes: usize) {
        self.ring_capacity = bytes;
    }

    pub(crate) fn set_max_result_bytes(&mut self, bytes: u64) {
        self.max_result_bytes = bytes;
    }

    pub(crate) fn set_max_queued(&mut self, tasks: usize) {
        self.max_queued = Some(tasks);
    }

    pub(crate) fn set_launch_timeout(&mut self, timeout: Duration) {
        self.launch_timeout = timeout;
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

    pub(crate) fn check(self) -> Result<ValidatedConfig, BuildError> {
        let invalid = |message: String| BuildError::new(BuildErrorKind::InvalidConfig, message);
        let processes = match self.processes {
            Some(processes) => processes,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        check_processes(processes).map_err(&invalid)?;
        if self.max_tasks_per_child == Some(0) {
            return Err(invalid(
                "max_tasks_per_child is 0: a worker must run at least one task (leave the option \
                 out for no limit)"
                    .into(),
            ));
        }
        let ring_bytes = self
            .ring_capacity
            .checked_next_power_of_two()
            .filter(|bytes| RING_BYTES.contains(bytes) && self.ring_capacity > 0)
            .ok_or_else(|| {
                invalid(format!(
                    "ring_capacity is {}: it must be between {} and {} bytes",
                    self.ring_capacity,
                    RING_BYTES.start(),
                    RING_BYTES.end()
                ))
            })?;
        if self.max_result_bytes == 0 {
            return Err(invalid(
                "max_result_bytes is 0: no task could return anything (leave the option out for \
                 the default)"
                    .into(),
            ));
        }
        if self.max_queued == Some(0) {
            return Err(invalid(
                "max_queued is 0: a task must wait somewhere until a worker has it (leave the \
                 option out for no limit)"
                    .into(),
            ));
        }
        if self.launch_timeout.is_zero() {
            return Err(invalid(
                "launch_timeout is 0: no worker starts in no time".into(),
            ));
        }
        let (initializer, attachments) = match self.initializer {
            None => (None, Attachments::default()),
            Some(initializer) => {
                let entry = initializer.entry.map_err(&invalid)?;
                let argument = initializer.argument.map_err(|error| {
                    invalid(format!(
                        "cannot serialise the initializer's argument: {error}"
                    ))
                })?;
                (Some((entry, argument)), initializer.attachments)
            }
        };
        Ok(ValidatedConfig {
            processes,
            initializer,
            attachments,
            finalizer: self.finalizer.transpose().map_err(&invalid)?,
            max_tasks_per_child: self.max_tasks_per_child,
            rings: RingSizes::both(ring_bytes),
            max_result_bytes: self.max_result_bytes,
            launch_timeout: self.launch_timeout,
            lifecycle: self.lifecycle.check(processes).map_err(invalid)?,
            stdout: self.stdout,
            stderr: self.stderr,
            forward_events: self.forward_events,
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
