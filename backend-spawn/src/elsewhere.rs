//! Where there is no Unix, nothing is executed again: the same names are there, and say so.

use std::ffi::{OsStr, OsString};

use procpool_core::{
    Backend, BuildError, BuildErrorKind, Executing, Launcher, PoolBuilder, WorkerPool,
};

/// What everybody is told.
const NONE: &str =
    "a SpawnPool needs a Unix: use a SerialPool, which runs all tasks in this process";

/// A pool of workers that are this executable, executed again, which only a Unix can do so: `build`
/// fails, and says so.
pub type SpawnPool = WorkerPool<SpawnBackend>;

/// The options of a [`SpawnPool`].
pub type SpawnPoolBuilder = PoolBuilder<SpawnBackend>;

/// Where a [`SpawnPool`] would have its workers from.
#[derive(Debug, Default)]
pub struct SpawnBackend(());

impl Backend for SpawnBackend {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        Err(BuildError::new(BuildErrorKind::Launch, NONE))
    }
}

impl Executing for SpawnBackend {
    fn set_program(&mut self, _program: &OsStr) {}

    fn add_args(&mut self, _args: Vec<OsString>) {}
}

/// Returns at once: no process was started as a worker.
pub fn init() {}

/// The same, for the loader to call before `main`.
pub fn init_at_load() {}
