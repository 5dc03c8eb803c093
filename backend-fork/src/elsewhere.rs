//! Where there is no Linux, there is no fork server: the same names are there, and say so.

use std::convert::Infallible;
#[cfg(unix)]
use std::os::fd::BorrowedFd;

#[cfg(not(unix))]
use procpool_core::fd::BorrowedFd;
use procpool_core::worker::ForkHook;
use procpool_core::{
    Backend, BuildError, BuildErrorKind, ForkServing, Launcher, PoolBuilder, WorkerPool,
};

use crate::start_error::StartError;

/// What everybody is told.
const NONE: &str =
    "a ForkPool needs Linux: use a SpawnPool, whose workers are this program, executed again";

/// A pool of workers that are forked, which only Linux has: `build` fails, and says so.
pub type ForkPool = WorkerPool<ForkBackend>;

/// The options of a [`ForkPool`].
pub type ForkPoolBuilder = PoolBuilder<ForkBackend>;

/// Where a [`ForkPool`] would have its workers from.
#[derive(Debug, Default)]
pub struct ForkBackend(());

/// A fork server, which only Linux has.
#[derive(Debug, Clone)]
pub struct ForkServer(Infallible);

impl ForkServer {
    /// Starts none.
    ///
    /// # Errors
    /// Always.
    pub fn start() -> Result<Self, StartError> {
        Err(StartError::of_reason(NONE))
    }

    /// Starts none.
    ///
    /// # Errors
    /// Always.
    pub fn start_keeping(_fds: &[BorrowedFd<'_>]) -> Result<Self, StartError> {
        Self::start()
    }

    /// There is none that could be.
    ///
    /// # Errors
    /// Never.
    pub fn set_global(self) -> Result<(), Self> {
        match self.0 {}
    }

    /// None.
    #[must_use]
    pub fn global() -> Option<&'static Self> {
        None
    }

    /// Of none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self.0 {}
    }
}

impl Backend for ForkBackend {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        Err(BuildError::new(BuildErrorKind::Launch, NONE))
    }
}

impl ForkServing for ForkBackend {
    type Server = ForkServer;

    fn set_fork_server(&mut self, server: &ForkServer) {
        match server.0 {}
    }

    fn after_fork(&mut self, _hook: ForkHook) {}

    fn keep_fds(&mut self, _fds: &[BorrowedFd<'_>]) {}

    #[expect(unsafe_code, reason = "nothing is forked")]
    unsafe fn allow_threads(&mut self) {}
}
