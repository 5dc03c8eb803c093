//! The pool whose workers are this executable, executed again.

use std::sync::Arc;

use procpool_core::{BuildError, BuildErrorKind, Engine, Executor, Pool, PoolConfig};

use crate::init::check_ready;
use crate::launcher::SpawnLauncher;

/// A pool of workers that are this executable, executed again.
///
/// A worker starts from nothing: the program's `main` runs in it up to [`init`](crate::init()),
/// which is therefore the first line of `main`. It does not matter what threads the program has.
/// Dropping the pool terminates it.
///
/// ```no_run
/// # mod procpool { pub use procpool_core::*; pub use procpool_spawn::*; }
/// use procpool::{Pool, SpawnPool};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procpool::init();
///     let pool = SpawnPool::builder().processes(3).build()?;
///     assert_eq!(pool.map(|x: u64| x * x, 0..4)?, [0, 1, 4, 9]);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct SpawnPool {
    engine: Engine,
}

impl SpawnPool {
    /// A pool with all options at their defaults.
    ///
    /// # Errors
    /// As [`SpawnPoolBuilder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// A pool with options.
    pub fn builder() -> SpawnPoolBuilder {
        SpawnPoolBuilder::default()
    }
}

impl Pool for SpawnPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        self.engine.executor()
    }
}

/// The options of a [`SpawnPool`].
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct SpawnPoolBuilder {
    config: PoolConfig,
}

impl SpawnPoolBuilder {
    procpool_core::builder_methods!();

    /// Starts the workers, and returns when all of them have answered.
    ///
    /// # Errors
    /// When an option makes no sense; when [`init`](crate::init()) was not called first; when the
    /// system refuses what a worker needs, or a worker does not answer in time. Nothing is left
    /// behind.
    pub fn build(self) -> Result<SpawnPool, BuildError> {
        check_ready()
            .map_err(|error| BuildError::new(BuildErrorKind::MissingInit, error.to_string()))?;
        let engine = Engine::start(self.config, Box::new(SpawnLauncher::new()))?;
        Ok(SpawnPool { engine })
    }
}
