//! Who is compared, and how each is asked.

mod local;
mod own;
mod page;
mod procspawn;
mod remote;
mod runner;
mod serial;
mod threads;

pub use local::Local;
#[cfg(feature = "cluster")]
pub use own::cluster;
pub use own::{confined_fork, confined_spawn, fork, serial_pool, spawn};
#[cfg(feature = "cluster")]
pub use page::page_of_cluster;
pub use page::page_of_fork;
pub use procspawn::procspawn;
pub use remote::{FIRST_RESULT_LIMIT, PYTHON_SCRIPT, Remote};
pub use runner::Runner;
pub use serial::sequential;
pub use threads::rayon;

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::{Job, Measured};

/// What part somebody plays in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A physical limit: raw system calls and nothing else.
    Floor,
    /// It runs in the caller: a loop.
    Alone,
    /// Threads in place of processes.
    Threads,
    /// A pool of this workspace.
    Ours,
    /// Somebody else's pool of processes.
    Rival,
}

/// Somebody who can be measured.
pub trait Contender {
    /// What it is called in tables and charts.
    fn name(&self) -> &str;

    /// What it is compared as.
    fn role(&self) -> Role;

    /// Does the job, checks the result, and says how long that took. `None`: it has no such thing.
    ///
    /// # Errors
    /// [`Wrong`] when a result is wrong; any other error when there is none.
    fn run(&mut self, job: Job) -> anyhow::Result<Option<Measured>>;

    /// The same contender in a program that was started for it alone, so that the program's memory
    /// and processes are this contender's.
    ///
    /// # Errors
    /// When it does not start.
    fn fresh(&self, workers: usize) -> anyhow::Result<Remote> {
        Remote::this_program(self.name(), self.role(), workers)
    }
}

/// A result that is not what it must be. It ends the comparison.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrong result: {}", self.0)
    }
}

impl StdError for Wrong {}

/// A job that this contender has no means for.
#[derive(Debug)]
pub struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not supported")
    }
}

impl StdError for Unsupported {}
