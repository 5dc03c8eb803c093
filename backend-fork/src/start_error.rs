//! Why a fork server could not be started.

use procpool_core::LaunchError;
use std::error::Error;
use std::fmt;
use std::io;

/// Why a [`ForkServer`](crate::ForkServer) could not be started.
#[derive(Debug, Clone)]
pub struct StartError {
    message: String,
    threads: Option<usize>,
}

impl StartError {
    /// How many threads the process has, if that is the reason.
    #[must_use]
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }

    pub(crate) fn of_threads(count: usize) -> Self {
        Self {
            message: format!(
                "forking is unsound now, because this process has {count} threads: the copy would \
                 have only one of them, and a lock that another one holds at that moment would stay \
                 locked in it for ever; call ForkServer::start() as the first thing in main and \
                 hand it to the pool with .fork_server(&server), or use SpawnPool"
            ),
            threads: Some(count),
        }
    }

    pub(crate) fn of_system(what: &str, error: io::Error) -> Self {
        Self::of_reason(LaunchError::new(what).caused_by(error).to_string())
    }

    pub(crate) fn of_reason(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            threads: None,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StartError {}
