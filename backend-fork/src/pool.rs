//! The pool whose workers are forked.

use std::sync::Arc;

use procpool_core::{BuildError, BuildErrorKind, Engine, Executor, Pool, PoolConfig};

use crate::fork_server::ForkServer;
use crate::start_error::StartError;

/// A pool of workers that are forked from a [`ForkServer`].
///
/// A worker is a copy of the program as it was when its server started: what had been set up
/// before is simply there, at no cost. Dropping the pool terminates it.
///
/// That is so of everything, wanted or not:
/// - A generator of random numbers that was used before gives the same numbers in every worker.
///   Seed it in the initializer, which runs in each new worker, from the system or with
///   [`WorkerInfo::seed`](procpool_core::WorkerInfo::seed).
/// - What was open then (a pipe, a port, the lock of a file) stays open in the server and its
///   workers until the pool has ended: start the server before you open such things.
///
/// ```no_run
/// # mod procpool { pub use procpool_core::*; pub use procpool_fork::*; }
/// use procpool::{ForkPool, Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = ForkPool::builder().processes(3).build()?;
/// assert_eq!(pool.map(|x: u64| x * x, 0..4)?, [0, 1, 4, 9]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ForkPool {
    engine: Engine,
}

impl ForkPool {
    /// A pool with all options at their defaults.
    ///
    /// # Errors
    /// As [`ForkPoolBuilder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// A pool with options.
    pub fn builder() -> ForkPoolBuilder {
        ForkPoolBuilder::default()
    }
}

impl Pool for ForkPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        self.engine.executor()
    }
}

/// The options of a [`ForkPool`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ForkPoolBuilder {
    config: PoolConfig,
    server: Option<ForkServer>,
    allow_threads: bool,
}

impl ForkPoolBuilder {
    procpool_core::builder_methods!();

    /// The fork server to fork from. Without it, the process-wide one, if there is one, and else
    /// one that is started by [`build`](Self::build), while the program has only one thread.
    pub fn fork_server(mut self, server: &ForkServer) -> Self {
        self.server = Some(server.clone());
        self
    }

    /// Lets [`build`](Self::build) start a fork server although the program has several threads.
    ///
    /// # Safety
    /// As [`ForkServer::start_unchecked`]: no other thread holds a lock, or is in the middle of
    /// a change, that a task or the allocator could come upon in the copy.
    #[expect(unsafe_code, reason = "the caller takes the blame for the fork")]
    pub unsafe fn allow_threads(mut self) -> Self {
        self.allow_threads = true;
        self
    }

    /// Starts the workers, and returns when all of them have answered.
    ///
    /// # Errors
    /// When an option makes no sense; when the program has several threads and there is no fork
    /// server to use; when the system refuses what a worker needs. Nothing is left behind.
    pub fn build(self) -> Result<ForkPool, BuildError> {
        let config = self.config;
        let server = match self.server.or_else(|| ForkServer::global().cloned()) {
            Some(server) => server,
            None if self.allow_threads => {
                // SAFETY: the caller of `allow_threads` vouches for it.
                #[expect(unsafe_code, reason = "the caller of `allow_threads` takes the blame")]
                let server = unsafe { ForkServer::start_unchecked() };
                server.map_err(refused)?
            }
            None => ForkServer::start().map_err(refused)?,
        };
        let launcher = server.connect()?;
        let engine = Engine::start(config, Box::new(launcher))?;
        Ok(ForkPool { engine })
    }
}

fn refused(error: StartError) -> BuildError {
    let kind = if error.threads().is_some() {
        BuildErrorKind::Threads
    } else {
        BuildErrorKind::Launch
    };
    BuildError::new(kind, error.to_string())
}
