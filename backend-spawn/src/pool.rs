//! The pool whose workers are this executable, executed again.

use procpool_core::{
    Backend, BuildError, BuildErrorKind, Launcher, PoolBuilder, WorkerPool, shared_object,
};

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
pub type SpawnPool = WorkerPool<SpawnBackend>;

/// The options of a [`SpawnPool`].
pub type SpawnPoolBuilder = PoolBuilder<SpawnBackend>;

/// Where a [`SpawnPool`] has its workers from.
#[derive(Debug, Default)]
pub struct SpawnBackend {
    _private: (),
}

impl Backend for SpawnBackend {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        if let Some(path) = shared_object() {
            return Err(BuildError::new(
                BuildErrorKind::InvalidConfig,
                format!(
                    "this code is in a shared object ({}), which the program that is executed \
                     again as a worker would not have loaded; use ForkPool",
                    path.display()
                ),
            ));
        }
        check_ready()
            .map_err(|error| BuildError::new(BuildErrorKind::MissingInit, error.to_string()))?;
        Ok(Box::new(SpawnLauncher::new()))
    }
}
