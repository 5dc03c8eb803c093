//! Why a worker could not be started.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::hint::hint;
use super::task_error::LastLines;
use crate::panic::foreign_text::Shown;

/// Why a worker could not be started.
#[derive(Debug, Clone)]
pub struct LaunchError {
    message: String,
    source: Option<Arc<io::Error>>,
    missing_init: bool,
    lost_fork_server: bool,
}

impl LaunchError {
    /// An error that says what went wrong and what to do.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
            missing_init: false,
            lost_fork_server: false,
        }
    }

    /// The same, caused by an error of the system; what to do about that is added, where it is
    /// known.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<io::Error>) -> Self {
        self.source = Some(Arc::new(source.into()));
        self
    }

    /// The same, and the reason is that the program does not call `procpool::init()` in time.
    #[must_use]
    pub fn from_missing_init(mut self) -> Self {
        self.missing_init = true;
        self
    }

    /// Whether the reason is that the program does not call `procpool::init()` in time.
    #[must_use]
    pub fn is_missing_init(&self) -> bool {
        self.missing_init
    }

    /// The same, and the reason is that the process died which was to start the worker, and that
    /// another one has taken its place: the engine launches again at once, and does not count this
    /// as a failure. The backend sees to it that there is an end to it.
    #[must_use]
    pub fn from_lost_fork_server(mut self) -> Self {
        self.lost_fork_server = true;
        self
    }

    /// The same, with the last lines that the worker has written to standard error.
    pub(crate) fn with_stderr(mut self, stderr: Option<String>) -> Self {
        if let Some(stderr) = stderr {
            self.message = format!("{}{}", self.message, LastLines(&stderr));
        }
        self
    }

    /// Whether the process died which was to start the worker, and another one took its place.
    #[must_use]
    pub fn is_lost_fork_server(&self) -> bool {
        self.lost_fork_server
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A worker may have said so.
        write!(f, "{}", Shown(&self.message))?;
        if let Some(source) = &self.source {
            write!(f, ": {source}{}", hint(source))?;
        }
        Ok(())
    }
}

// The source is part of the text, so that a message that is carried on as text is complete;
// `source()` stays empty so that reporters that print the chain do not say it twice.
impl Error for LaunchError {}
