//! The kinds of pools that the suite is run for.

use std::path::Path;
use std::time::Duration;

use procpool::{
    AnyPool, BuildError, Output, Pool, Resource, SerialPool, Stateless, WorkerExit, WorkerInfo,
};
#[cfg(feature = "fork")]
use procpool::{ForkPool, ForkPoolBuilder};
#[cfg(feature = "spawn")]
use procpool::{SpawnPool, SpawnPoolBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of pool.
pub(crate) trait Subject: 'static {
    /// The pool itself.
    type Pool: Pool + Send + Sync + 'static;
    /// What its tests are called by.
    const NAME: &str;

    /// A pool of this many workers, if it has any.
    fn pool(workers: usize) -> Self::Pool;

    /// A pool with all options at their defaults.
    fn default_pool() -> Self::Pool;
}

/// A kind of pool whose workers are processes.
pub(crate) trait Processes: Subject {
    /// What its pools are built by.
    type Builder: Builder<Pool = Self::Pool>;

    fn builder() -> Self::Builder;
}

/// The options that all pools of processes have.
pub(crate) trait Builder: Sized {
    type Pool;

    fn processes(self, processes: usize) -> Self;
    fn initializer<F, A>(self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) + Stateless,
        A: Serialize + DeserializeOwned + 'static;
    fn finalizer<F: Fn() + Stateless>(self, finalizer: F) -> Self;
    fn max_tasks_per_child(self, tasks: u64) -> Self;
    fn ring_capacity(self, bytes: usize) -> Self;
    fn max_result_bytes(self, bytes: u64) -> Self;
    fn launch_timeout(self, timeout: std::time::Duration) -> Self;
    fn on_worker_start(self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) -> Self;
    fn on_worker_death(
        self,
        hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
    ) -> Self;
    fn env(self, key: &str, value: &str) -> Self;
    fn env_remove(self, key: &str) -> Self;
    fn env_clear(self) -> Self;
    fn current_dir(self, path: &Path) -> Self;
    fn nice(self, increment: i32) -> Self;
    fn rlimit(self, resource: Resource, soft: u64, hard: u64) -> Self;
    fn pin_cpus(self) -> Self;
    fn pin_cpus_to(self, cpus: Vec<usize>) -> Self;
    fn stdout(self, output: Output) -> Self;
    fn stderr(self, output: Output) -> Self;
    fn max_memory_per_child(self, bytes: u64) -> Self;
    fn max_age(self, age: Duration) -> Self;
    fn idle_timeout(self, timeout: Duration) -> Self;
    fn min_processes(self, processes: usize) -> Self;
    fn forward_events(self) -> Self;
    fn try_build(self) -> Result<Self::Pool, BuildError>;

    fn build(self) -> Self::Pool {
        self.try_build().expect("a pool can be built")
    }
}

/// [`SerialPool`].
pub(crate) struct Serial;

impl Subject for Serial {
    type Pool = SerialPool;
    const NAME: &str = "serial";

    fn pool(_workers: usize) -> SerialPool {
        SerialPool::new()
    }

    fn default_pool() -> SerialPool {
        SerialPool::new()
    }
}

/// [`AnyPool`], as a box of it, which is a pool as well.
pub(crate) struct Any;

impl Subject for Any {
    type Pool = Box<AnyPool>;
    const NAME: &str = "any";

    fn pool(workers: usize) -> Box<AnyPool> {
        #[cfg(feature = "fork")]
        return Box::new(Fork::pool(workers).into());
        #[cfg(all(feature = "spawn", not(feature = "fork")))]
        return Box::new(Spawn::pool(workers).into());
        #[cfg(not(any(feature = "fork", feature = "spawn")))]
        return Box::new(Serial::pool(workers).into());
    }

    fn default_pool() -> Box<AnyPool> {
        #[cfg(feature = "fork")]
        return Box::new(Fork::default_pool().into());
        #[cfg(all(feature = "spawn", not(feature = "fork")))]
        return Box::new(Spawn::default_pool().into());
        #[cfg(not(any(feature = "fork", feature = "spawn")))]
        return Box::new(Serial::default_pool().into());
    }
}

/// Makes a subject of a pool of processes.
#[cfg(any(feature = "fork", feature = "spawn"))]
macro_rules! subject {
    ($subject:ident, $name:literal, $pool:ty, $builder:ty) => {
        impl Subject for $subject {
            type Pool = $pool;
            const NAME: &str = $name;

            fn pool(workers: usize) -> $pool {
                Builder::build(<$pool>::builder().processes(workers))
            }

            fn default_pool() -> $pool {
                <$pool>::new().expect("a pool can be built")
            }
        }

        impl Processes for $subject {
            type Builder = $builder;

            fn builder() -> $builder {
                <$pool>::builder()
            }
        }

        impl Builder for $builder {
            type Pool = $pool;

            fn processes(self, processes: usize) -> Self {
                self.processes(processes)
            }

            fn initializer<F, A>(self, initializer: F, argument: A) -> Self
            where
                F: Fn(A) + Stateless,
                A: Serialize + DeserializeOwned + 'static,
            {
                self.initializer(initializer, argument)
            }

            fn finalizer<F: Fn() + Stateless>(self, finalizer: F) -> Self {
                self.finalizer(finalizer)
            }

            fn max_tasks_per_child(self, tasks: u64) -> Self {
                self.max_tasks_per_child(tasks)
            }

            fn ring_capacity(self, bytes: usize) -> Self {
                self.ring_capacity(bytes)
            }

            fn max_result_bytes(self, bytes: u64) -> Self {
                self.max_result_bytes(bytes)
            }

            fn launch_timeout(self, timeout: std::time::Duration) -> Self {
                self.launch_timeout(timeout)
            }

            fn on_worker_start(self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) -> Self {
                self.on_worker_start(hook)
            }

            fn on_worker_death(
                self,
                hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
            ) -> Self {
                self.on_worker_death(hook)
            }

            fn env(self, key: &str, value: &str) -> Self {
                self.env(key, value)
            }

            fn env_remove(self, key: &str) -> Self {
                self.env_remove(key)
            }

            fn env_clear(self) -> Self {
                self.env_clear()
            }

            fn current_dir(self, path: &Path) -> Self {
                self.current_dir(path)
            }

            fn nice(self, increment: i32) -> Self {
                self.nice(increment)
            }

            fn rlimit(self, resource: Resource, soft: u64, hard: u64) -> Self {
                self.rlimit(resource, soft, hard)
            }

            fn pin_cpus(self) -> Self {
                self.pin_cpus()
            }

            fn pin_cpus_to(self, cpus: Vec<usize>) -> Self {
                self.pin_cpus_to(cpus)
            }

            fn stdout(self, output: Output) -> Self {
                self.stdout(output)
            }

            fn stderr(self, output: Output) -> Self {
                self.stderr(output)
            }

            fn max_memory_per_child(self, bytes: u64) -> Self {
                self.max_memory_per_child(bytes)
            }

            fn max_age(self, age: Duration) -> Self {
                self.max_age(age)
            }

            fn idle_timeout(self, timeout: Duration) -> Self {
                self.idle_timeout(timeout)
            }

            fn min_processes(self, processes: usize) -> Self {
                self.min_processes(processes)
            }

            fn forward_events(self) -> Self {
                self.forward_events()
            }

            fn try_build(self) -> Result<$pool, BuildError> {
                self.build()
            }
        }
    };
}

/// [`ForkPool`]. In the test program itself its workers come from the fork server that `main`
/// has started; elsewhere each pool starts one of its own.
#[cfg(feature = "fork")]
pub(crate) struct Fork;
#[cfg(feature = "fork")]
subject!(Fork, "fork", ForkPool, ForkPoolBuilder);

/// [`SpawnPool`].
#[cfg(feature = "spawn")]
pub(crate) struct Spawn;
#[cfg(feature = "spawn")]
subject!(Spawn, "spawn", SpawnPool, SpawnPoolBuilder);
