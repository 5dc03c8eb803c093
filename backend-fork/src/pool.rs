//! The pool whose workers are forked.

use std::os::fd::BorrowedFd;

use procpool_core::worker::ForkHook;
use procpool_core::{
    Backend, BuildError, BuildErrorKind, ForkServing, Launcher, PoolBuilder, WorkerPool,
};

use crate::fork_server::{ForkServer, numbers};
use crate::server::Kept;
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
///   workers until the pool has ended: start the server before you open such things, or say
///   [`keep_fds`](PoolBuilder::keep_fds).
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
pub type ForkPool = WorkerPool<ForkBackend>;

/// The options of a [`ForkPool`].
pub type ForkPoolBuilder = PoolBuilder<ForkBackend>;

/// Where a [`ForkPool`] has its workers from: see [`fork_server`](PoolBuilder::fork_server),
/// [`keep_fds`](PoolBuilder::keep_fds), [`after_fork`](PoolBuilder::after_fork) and
/// [`allow_threads`](PoolBuilder::allow_threads).
#[derive(Debug, Default)]
pub struct ForkBackend {
    server: Option<ForkServer>,
    allow_threads: bool,
    kept: Kept,
}

impl Backend for ForkBackend {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        let started = self.server.or_else(|| ForkServer::global().cloned());
        let server = match started {
            Some(_) if self.kept.fds.is_some() => {
                return Err(BuildError::new(
                    BuildErrorKind::InvalidConfig,
                    "keep_fds(..) is about the fork server that build() starts, and this pool has \
                     one that was started before: start that with ForkServer::start_keeping(..)",
                ));
            }
            Some(_) if !self.kept.hooks.is_empty() => {
                return Err(BuildError::new(
                    BuildErrorKind::InvalidConfig,
                    "after_fork(..) is for the workers of the fork server that build() starts, and \
                     this pool has one that was started before: run it in the initializer",
                ));
            }
            Some(server) => server,
            None if self.allow_threads => {
                // SAFETY: the caller of `allow_threads` vouches for it.
                #[expect(unsafe_code, reason = "the caller of `allow_threads` takes the blame")]
                let server =
                    unsafe { ForkServer::start_anyhow(procpool_core::worker::serve, self.kept) };
                server.map_err(refused)?
            }
            None => {
                ForkServer::start_alone(procpool_core::worker::serve, self.kept).map_err(refused)?
            }
        };
        Ok(Box::new(server.connect()?))
    }
}

impl ForkServing for ForkBackend {
    type Server = ForkServer;

    fn set_fork_server(&mut self, server: &ForkServer) {
        self.server = Some(server.clone());
    }

    fn after_fork(&mut self, hook: ForkHook) {
        self.kept.hooks.push(hook);
    }

    fn keep_fds(&mut self, fds: &[BorrowedFd<'_>]) {
        self.kept.fds = Some(numbers(fds));
    }

    #[expect(unsafe_code, reason = "the caller takes the blame for the fork")]
    unsafe fn allow_threads(&mut self) {
        self.allow_threads = true;
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
