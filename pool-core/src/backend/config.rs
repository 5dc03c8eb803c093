//! What a pool is built from.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lifecycle_options::{LifecycleOptions, ValidatedLifecycle};
use crate::broadcast::SharedMemory;
use crate::codec;
use crate::error::build_error::{BuildError, BuildErrorKind};
use crate::observe::output::Output;
use crate::panic::catch::catch;
use crate::shm::protocol;
use crate::shm::region::RING_BYTES;
use crate::worker::function::{FunctionId, Stateless};

/// The options that every pool of processes has; a backend's builder wraps it.
#[derive(Debug, Clone)]
pub struct PoolConfig {
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
}

/// A function to run first in each worker, with its argument.
#[derive(Debug, Clone)]
struct Initializer {
    entry: Result<FunctionId, String>,
    argument: Result<Vec<u8>, String>,
    /// The memory that handles in it mean.
    attachments: Vec<Arc<SharedMemory>>,
}

/// A config whose values make sense.
#[derive(Debug)]
pub(crate) struct ValidatedConfig {
    pub(crate) processes: usize,
    /// The initializer and its argument as an item.
    pub(crate) initializer: Option<(FunctionId, Vec<u8>)>,
    /// The memory that handles in that argument mean.
    pub(crate) attachments: Vec<Arc<SharedMemory>>,
    pub(crate) finalizer: Option<FunctionId>,
    pub(crate) max_tasks_per_child: Option<u64>,
    pub(crate) ring_bytes: usize,
    pub(crate) max_result_bytes: u64,
    pub(crate) launch_timeout: Duration,
    pub(crate) lifecycle: ValidatedLifecycle,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) forward_events: bool,
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
        }
    }
}

/// More workers than this are a mistake in a unit: it is more processes than Linux allows.
const MAX_PROCESSES: usize = 1 << 15;

impl PoolConfig {
    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_processes(&mut self, processes: usize) {
        self.processes = Some(processes);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_initializer<F, A>(&mut self, initializer: F, argument: &A)
    where
        F: Fn(A) + Stateless,
        A: Serialize + DeserializeOwned + 'static,
    {
        let mut item = Vec::new();
        let mut attachments = Vec::new();
        let encoded = catch(|| {
            protocol::append_item(&mut item, |out| {
                codec::encode_attached(argument, out, &mut attachments)
            })
            .map_err(|error| error.to_string())
        });
        self.initializer = Some(Initializer {
            entry: FunctionId::of::<F, A, ()>(&initializer).map_err(|error| error.to_string()),
            argument: match encoded {
                Ok(Ok(())) => Ok(item),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.message),
            },
            attachments,
        });
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_finalizer<F: Fn() + Stateless>(&mut self, finalizer: F) {
        // Called through a closure that captures it, which is of no size if `finalizer` is.
        fn entry<F: Fn(()) + Stateless>(function: &F) -> Result<FunctionId, String> {
            FunctionId::of::<F, (), ()>(function).map_err(|error| error.to_string())
        }
        self.finalizer = Some(entry(&move |()| finalizer()));
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_max_tasks_per_child(&mut self, tasks: u64) {
        self.max_tasks_per_child = Some(tasks);
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_ring_capacity(&mut self, bytes: usize) {
        self.ring_capacity = bytes;
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_max_result_bytes(&mut self, bytes: u64) {
        self.max_result_bytes = bytes;
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_launch_timeout(&mut self, timeout: Duration) {
        self.launch_timeout = timeout;
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_stdout(&mut self, output: Output) {
        self.stdout = output;
    }

    /// See [`builder_methods!`](crate::builder_methods).
    pub fn set_stderr(&mut self, output: Output) {
        self.stderr = output;
    }

    /// See [`builder_methods!`](crate::builder_methods).
    #[cfg(feature = "tracing")]
    pub fn set_forward_events(&mut self) {
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
        if self.launch_timeout.is_zero() {
            return Err(invalid(
                "launch_timeout is 0: no worker starts in no time".into(),
            ));
        }
        let (initializer, attachments) = match self.initializer {
            None => (None, Vec::new()),
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
            ring_bytes,
            max_result_bytes: self.max_result_bytes,
            launch_timeout: self.launch_timeout,
            lifecycle: self.lifecycle.check(processes).map_err(invalid)?,
            stdout: self.stdout,
            stderr: self.stderr,
            forward_events: self.forward_events,
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

/// Defines, inside the `impl` of a backend's builder, the options that every pool has. The
/// builder has a field `config` of type [`PoolConfig`].
#[macro_export]
macro_rules! builder_methods {
    () => {
        /// How many workers there are. Without it, as many as
        /// [`available_parallelism`](std::thread::available_parallelism) says.
        #[must_use]
        pub fn processes(mut self, processes: usize) -> Self {
            self.config.set_processes(processes);
            self
        }

        /// A function to run once in each worker before its first task, replacements included.
        ///
        /// The argument travels to each worker. An initializer that fails (by a panic, an exit or a
        /// crash) is tried again in a new worker; after a few failures in a row the pool gives up,
        /// and every task fails with the reason, with an error of kind `Initializer`.
        #[must_use]
        pub fn initializer<F, A>(mut self, initializer: F, argument: A) -> Self
        where
            F: Fn(A) + $crate::Stateless,
            A: $crate::serde::Serialize + $crate::serde::de::DeserializeOwned + 'static,
        {
            self.config.set_initializer(initializer, &argument);
            self
        }

        /// A function to run in a worker that leaves in good order: because the pool was
        /// closed or the worker has used up its tasks. Not in one that is killed.
        #[must_use]
        pub fn finalizer<F: Fn() + $crate::Stateless>(mut self, finalizer: F) -> Self {
            self.config.set_finalizer(finalizer);
            self
        }

        /// How many tasks a worker runs before a new one takes its place; a chunk of items
        /// counts as one task. Without it, no limit.
        #[must_use]
        pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
            self.config.set_max_tasks_per_child(tasks);
            self
        }

        /// The size in bytes of the two rings of shared memory that each worker has, one each
        /// way; rounded up to a power of two, from 4 KiB to 1 GiB. Without it, 256 KiB. Larger
        /// messages stream through it in pieces.
        #[must_use]
        pub fn ring_capacity(mut self, bytes: usize) -> Self {
            self.config.set_ring_capacity(bytes);
            self
        }

        /// How many bytes the encoded result of one task may have. Without it, 4 GiB.
        ///
        /// A longer result is an error of kind `Encode`; the task runs, and its worker lives on.
        /// The limit protects the parent from tasks that return too much by mistake, and from
        /// workers that went wrong. A result in shared memory (a [`Broadcast`]($crate::Broadcast))
        /// counts with the bytes of its handle.
        #[must_use]
        pub fn max_result_bytes(mut self, bytes: u64) -> Self {
            self.config.set_max_result_bytes(bytes);
            self
        }

        /// How long a worker may take to start before the launch counts as failed. Without it, 10
        /// seconds.
        #[must_use]
        pub fn launch_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.config.set_launch_timeout(timeout);
            self
        }

        /// What becomes of what workers write to standard output: inherited, discarded, or captured
        /// line by line. Without it, it goes where the program's goes.
        #[must_use]
        pub fn stdout(mut self, output: $crate::Output) -> Self {
            self.config.set_stdout(output);
            self
        }

        /// The same for standard error. Where it is captured, the error of a lost task has the last
        /// lines of it: `Output::tee()` passes everything on and does that.
        #[must_use]
        pub fn stderr(mut self, output: $crate::Output) -> Self {
            self.config.set_stderr(output);
            self
        }

        /// Replays the workers' `tracing` events to the subscriber that is current where the pool
        /// is built (or, if there is none, to the global one). They get the fields `worker`, `pid`,
        /// `task` (the function's name) and `spans` (those that the event was in there, with their
        /// fields). Needs the feature `tracing`.
        ///
        /// Events have the level, target, place and fields that they had in the worker, so that
        /// filters work on them. An event of a task belongs to the span that the call was made in,
        /// as if the caller had emitted it: within `request{id=7}`, the usual subscriber prints
        /// `request{id=7}: …`. (That is the current span of the calling thread in that subscriber;
        /// for `imap`, where `imap` was called. If no subscriber was current where the pool was
        /// built, the event goes to the span's own.) The pool keeps the span open until the call is
        /// done and its events are replayed, not longer. Threads that a task starts belong to it
        /// while they are in a span of the task's. Events that come after the task has its outcome,
        /// or after it was killed, belong to no span, as do events outside of tasks.
        ///
        /// Those of a level that no subscriber of the program wants when a worker is
        /// started are not even sent. Records of `log` come, too, if the worker has the usual
        /// bridge, `tracing_log::LogTracer`, from the initializer, say.
        ///
        /// Tasks never wait for it. What does not fit into the worker's pipe, or while a few MiB of
        /// events wait for the subscriber, is dropped and counted: an event of the target
        /// `procpool::worker` says how many were, and `Stats::events_dropped` has the sum. Long
        /// texts are cut (the message at 2 KiB), and an event that has lost something has the field
        /// `cut`.
        ///
        /// In the worker, this is the subscriber of the thread that tasks run on, before any global
        /// one; and the global one as well, unless a forked worker has inherited one. An
        /// initializer must therefore not *insist* on a global one of its own, as
        /// `tracing_subscriber`'s `init` does: `try_init`.
        #[cfg(feature = "tracing")]
        #[must_use]
        pub fn forward_events(mut self) -> Self {
            self.config.set_forward_events();
            self
        }

        $crate::lifecycle_methods!();
    };
}
