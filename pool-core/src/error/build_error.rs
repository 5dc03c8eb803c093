//! How building a pool, resizing it, or waiting for its end can fail.

use std::error::Error;
use std::fmt;

use crate::error::launch_error::LaunchError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::process::fork::OF_FORK;

/// Why a pool could not be built. The text says what to do about it.
#[derive(Clone)]
pub struct BuildError {
    kind: BuildErrorKind,
    message: String,
}

/// The kinds of [`BuildError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// An option has a value that makes no sense, such as zero processes.
    InvalidConfig,
    /// `procpool::init()` is not called, or not early enough.
    MissingInit,
    /// The program has several threads, and forking it would be unsound.
    Threads,
    /// The system refused what a worker needs, or a worker did not come up.
    Launch,
    /// The initializer failed in one of the workers.
    Initializer,
}

impl BuildError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: BuildErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> BuildErrorKind {
        self.kind
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot build the pool: {}", self.message)
    }
}

/// What a person reads, since `main` prints it so when it returns an error.
impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BuildError {}

impl From<LaunchError> for BuildError {
    fn from(error: LaunchError) -> Self {
        let kind = if error.is_missing_init() {
            BuildErrorKind::MissingInit
        } else {
            BuildErrorKind::Launch
        };
        Self::new(kind, error.to_string())
    }
}

/// Of a pool that ends for this reason while it is being built.
impl From<&TaskError> for BuildError {
    fn from(reason: &TaskError) -> Self {
        let kind = match reason.kind() {
            TaskErrorKind::Initializer => BuildErrorKind::Initializer,
            _ => BuildErrorKind::Launch,
        };
        Self::new(kind, reason.to_string())
    }
}

/// Why a pool cannot be joined.
#[derive(Clone)]
pub struct JoinError {
    message: &'static str,
}

impl JoinError {
    /// The pool is neither closed nor terminated, so waiting for its end might never end.
    #[must_use]
    pub fn not_closed() -> Self {
        Self {
            message: "the pool is still open: call close() or terminate() before join()",
        }
    }

    /// This process is a fork of the one that the pool belongs to.
    pub(crate) fn of_fork() -> Self {
        Self { message: OF_FORK }
    }

    /// The calling thread is one of those that the pool's end waits for, such as that of its
    /// callbacks.
    #[must_use]
    pub fn from_inside() -> Self {
        Self {
            message: "a thread of the pool cannot wait for the pool's end: join() from another thread",
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

/// What a person reads, since `main` prints it so when it returns an error.
impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for JoinError {}

/// Why a pool cannot be resized.
#[derive(Clone)]
pub struct ResizeError {
    message: String,
}

impl ResizeError {
    /// An error that says why not, for a [`Pool`](crate::Pool) of your own.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    pub(crate) fn closed() -> Self {
        Self::new("it is closed")
    }

    pub(crate) fn fixed() -> Self {
        Self::new("a pool of this kind has always as many workers as in the beginning")
    }
}

impl fmt::Display for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resize the pool: {}", self.message)
    }
}

/// What a person reads, since `main` prints it so when it returns an error.
impl fmt::Debug for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ResizeError {}
