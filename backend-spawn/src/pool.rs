//! The pool whose workers are this executable, executed again.

use std::ffi::{OsStr, OsString};

use procpool_core::{
    Backend, BuildError, BuildErrorKind, Executing, Launcher, PoolBuilder, WorkerPool,
    shared_object,
};

use crate::init::{MissingInit, check_not_passed_by, check_ready};
use crate::launcher::SpawnLauncher;
use crate::program::Program;

/// A pool of workers that are this executable, executed again.
///
/// A worker starts from nothing: the program's `main` runs in it up to [`init`](crate::init()),
/// which is therefore the first line of `main`. It does not matter what threads the program has.
/// Dropping the pool terminates it. In a shared object the workers are the program with the object
/// loaded into it first; [`program`](PoolBuilder::program) names another one.
///
/// To replace a worker, the program is executed once more, by `/proc/self/exe`. A program that
/// changes its root (`chroot`) while it has a pool goes on with the workers that it has; when one
/// dies, and `/proc`, the loader or its libraries are not under the new root, tasks fail as
/// [`Launch`](procpool_core::TaskErrorKind::Launch). A `ForkPool` needs no file.
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

/// Where a [`SpawnPool`] has its workers from: see [`program`](PoolBuilder::program) and
/// [`args`](PoolBuilder::args).
#[derive(Debug, Default)]
pub struct SpawnBackend {
    program: Option<OsString>,
    args: Vec<OsString>,
}

impl Backend for SpawnBackend {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        let launcher = match self.program {
            Some(program) => {
                // A shared object need not have called it here: the program calls another function
                // of it that does.
                let is_ready = match shared_object() {
                    Some(_) => check_not_passed_by(),
                    None => check_ready(),
                };
                is_ready.map_err(missing_init)?;
                SpawnLauncher::of(Program::named(&program, self.args).map_err(invalid)?)
            }
            None if !self.args.is_empty() => {
                return Err(invalid(
                    "args(..) are of a program(..), and this pool has none: its workers have this \
                     program's arguments",
                ));
            }
            None => {
                check_ready().map_err(missing_init)?;
                if shared_object().is_some() {
                    SpawnLauncher::of(Program::again().map_err(invalid)?)
                } else {
                    SpawnLauncher::new()
                }
            }
        };
        Ok(Box::new(launcher))
    }
}

impl Executing for SpawnBackend {
    fn set_program(&mut self, program: &OsStr) {
        self.program = Some(program.to_owned());
    }

    fn add_args(&mut self, args: Vec<OsString>) {
        self.args.extend(args);
    }
}

fn missing_init(error: MissingInit) -> BuildError {
    BuildError::new(BuildErrorKind::MissingInit, error.to_string())
}

fn invalid(error: impl ToString) -> BuildError {
    BuildError::new(BuildErrorKind::InvalidConfig, error.to_string())
}
