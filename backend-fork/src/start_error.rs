//! Why a fork server could not be started.

use procpool_core::{LaunchError, shared_object};
use std::error::Error;
use std::fmt;
use std::io;

/// How many threads a message names.
const MAX_NAMES: usize = 8;
/// Threads of the library's: what each does, and what ends it. The kernel keeps 15 bytes of a name.
const OWN: &[(&str, &str)] = &[
    (
        "procpool-feeder",
        "reads the input of an imap and waits in the input's next(): read that iterator to its \
         end, or drop it and let the input's next() return, or start the server before",
    ),
    (
        "procpool-superv",
        "looks after a pool that is alive: drop that pool, or start the server before",
    ),
];

/// Names threads.
fn list(names: &[String]) -> String {
    let named: Vec<String> = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| format!("{name:?}"))
        .collect();
    let named = named.join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

/// How to start a server while there is one thread.
fn remedy() -> &'static str {
    if shared_object().is_some() {
        "Call ForkServer::start() when the shared object is loaded, before the program that loads \
         it, or another library, starts threads (in Python, import this module before numpy, say), \
         and hand it to the pool with .fork_server(&server)"
    } else {
        "Call ForkServer::start() as the first thing in main and hand it to the pool with \
         .fork_server(&server)"
    }
}

/// Why a [`ForkServer`](crate::ForkServer) could not be started.
#[derive(Clone)]
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

    /// There are threads of these names beside the one that called.
    pub(crate) fn of_threads(others: &[String]) -> Self {
        let count = others.len() + 1;
        let mut message = format!(
            "forking is unsound now, because this process has {count} threads: this one, and {}. \
             The copy would have only one of them, and a lock that another one holds at that \
             moment would stay locked in it forever. {}, or use SpawnPool",
            list(others),
            remedy()
        );
        for (name, what) in OWN {
            if others.iter().any(|other| other == name) {
                message.push_str(&format!(". {name:?} {what}"));
            }
        }
        Self {
            message,
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

/// What a person reads, since `main` prints it so when it returns an error.
impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for StartError {}
