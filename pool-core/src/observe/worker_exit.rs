//! How and why a worker's life ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::process::exit_status::ExitStatus;

/// How and why a worker ended: what a builder's `on_worker_death` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerExit {
    exit: ExitStatus,
    reason: ExitReason,
}

impl WorkerExit {
    /// For a pool of your own.
    #[must_use]
    pub fn new(exit: ExitStatus, reason: ExitReason) -> Self {
        Self { exit, reason }
    }

    /// Why it ended.
    #[must_use]
    pub fn reason(&self) -> ExitReason {
        self.reason
    }

    /// How its process ended.
    #[must_use]
    pub fn exit(&self) -> ExitStatus {
        self.exit
    }

    /// The signal that killed it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.exit {
            ExitStatus::Signal(signal) => Some(signal),
            _ => None,
        }
    }

    /// The code that it exited with.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self.exit {
            ExitStatus::Code(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            ExitStatus::Orphaned => write!(f, "{}", self.reason),
            exit => write!(f, "{} ({exit})", self.reason),
        }
    }
}

/// Why a worker ended.
///
/// The text of each reason completes "the worker …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It had run as many tasks as `max_tasks_per_child` allows.
    MaxTasks,
    /// It held more memory than `max_memory_per_child` allows.
    MaxMemory,
    /// It was older than `max_age` allows.
    MaxAge,
    /// It had had nothing to do for `idle_timeout`.
    Idle,
    /// The pool was made smaller.
    Resized,
    /// The pool was closed, and there was nothing left to do.
    Closed,
    /// It died of its own, or somebody outside of the pool has killed it.
    Crashed,
    /// There was no memory for it: it was at the pool's `memory_limit`, or the system's
    /// out-of-memory killer has chosen it, as far as the control group tells.
    OutOfMemory,
    /// It was killed because its task was at its deadline.
    Deadline,
    /// It was killed because its task was to be.
    Cancelled,
    /// It was killed because it wrote rubbish into the memory that it shares with the pool.
    ProtocolViolation,
    /// It was killed because it did not get ahead in the time that it had, whatever it said of
    /// itself.
    Unresponsive,
    /// It had closed what it wakes the pool with, as code does that closes descriptors which it
    /// does not know (`close_range(3, ~0)`).
    Disconnected,
    /// It was not ready: its initializer failed, or a setting of the builder's could not be
    /// applied.
    StartFailed,
    /// The pool was terminated or dropped, or had to give up.
    Terminated,
}

impl ExitReason {
    /// Whether the worker left in good order, after its finalizer.
    #[must_use]
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            Self::MaxTasks
                | Self::MaxMemory
                | Self::MaxAge
                | Self::Idle
                | Self::Resized
                | Self::Closed
        )
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxTasks => "had run as many tasks as it may",
            Self::MaxMemory => "held more memory than it may",
            Self::MaxAge => "was older than it may be",
            Self::Idle => "had nothing to do",
            Self::Resized => "was one too many",
            Self::Closed => "was not needed any more",
            Self::Crashed => "died",
            Self::OutOfMemory => "died for want of memory",
            Self::Deadline => "was killed at its task's deadline",
            Self::Cancelled => "was killed with its task",
            Self::ProtocolViolation => "wrote rubbish and was killed",
            Self::Unresponsive => "did not get ahead and was killed",
            Self::Disconnected => "had closed its connection to the pool",
            Self::StartFailed => "could not be made ready",
            Self::Terminated => "was killed with its pool",
        })
    }
}
