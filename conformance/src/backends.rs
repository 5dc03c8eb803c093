//! The kinds of pools that the suite is run for.

use std::path::Path;
use std::time::Duration;

use procpool::backend::Backend;
use procpool::{
    BuildError, InitializerOutcome, Output, Pool, PoolBuilder, Resource, Stateless, WorkerExit,
    WorkerInfo, WorkerPool,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of pool.
pub trait Subject: 'static {
    /// The pool itself.
    type Pool: Pool + Send + Sync + 'static;
    /// What its tests are called by.
    const NAME: &str;
    /// Whether tasks run elsewhere than in the caller, by as many workers as are asked for.
    const HAS_WORKERS: bool = true;
    /// Whether [`Pool::trace_to`] writes down what these pools do.
    const IS_TRACED: bool = true;
    /// Whether they carry what tasks emit: see [`Call::stream`](procpool::Call::stream).
    const CARRIES_VALUES: bool = true;
    /// How often there is a buffer for them: a pool elsewhere has one on each side.
    const STREAM_BUFFERS: usize = 1;
    /// How often a task is tried again that is tried again very often: where an attempt takes a
    /// way over a network, less often.
    const MANY_ATTEMPTS: u32 = 20_000;
    /// Whether tasks run where a descriptor can be passed to: not on another machine.
    const PASSES_DESCRIPTORS: bool = true;

    /// A pool of this many workers, if it has any.
    fn pool(workers: usize) -> Self::Pool;

    /// A pool with all options at their defaults.
    fn default_pool() -> Self::Pool;
}

/// A kind of pool whose workers are processes. [`subject!`](crate::subject) makes one of a
/// [`WorkerPool`](procpool::WorkerPool).
pub trait Processes: Subject {
    /// What its pools are built by.
    type Builder: Builder<Pool = Self::Pool>;
    /// A kind of pool that tasks of these pools build beside pools of their own kind.
    type Other: Processes;
    /// Whether a worker begins as a copy of the program, with what that had set up before.
    const IS_COPY: bool = false;
    /// The names (`/proc/PID/comm`) of the children of the program that start workers for it,
    /// each of which there is one of. None: the program starts them itself.
    const STARTERS: &[&str] = &[];

    /// All options at their defaults.
    fn builder() -> Self::Builder;

    /// A pool for tasks that crash on purpose: what a worker says when it dies looks like a test
    /// that has failed, so nobody hears it.
    fn quiet_pool(workers: usize) -> Self::Pool {
        let builder = Self::builder().processes(workers);
        builder.stderr(Output::discard()).build()
    }
}

/// Makes a [`Subject`] with [`Processes`] of a type of pool: what stands before the colon is a new
/// type, and what its tests are called by.
///
/// ```
/// procpool_conformance::subject!(Spawn = "spawn": procpool::SpawnPool);
/// ```
///
/// [`Processes::Other`] is this kind itself, unless another one stands behind `beside`. The
/// constants of [`Processes`] may follow in braces.
#[macro_export]
macro_rules! subject {
    ($subject:ident = $name:literal: $pool:ty) => {
        $crate::subject!($subject = $name: $pool, beside $subject {});
    };
    ($subject:ident = $name:literal: $pool:ty, beside $other:ty { $($constant:item)* }) => {
        #[doc = concat!("The kind of pool that is called ", $name, ".")]
        pub(crate) struct $subject;

        impl $crate::Subject for $subject {
            type Pool = $pool;
            const NAME: &'static str = $name;

            fn pool(workers: usize) -> $pool {
                let builder = <Self as $crate::Processes>::builder();
                $crate::Builder::build($crate::Builder::processes(builder, workers))
            }

            fn default_pool() -> $pool {
                <$pool>::new().expect("a pool can be built")
            }
        }

        impl $crate::Processes for $subject {
            type Builder = <$pool as $crate::Built>::Builder;
            type Other = $other;
            $($constant)*

            fn builder() -> Self::Builder {
                <$pool>::builder()
            }
        }
    };
}

/// The options that all pools of processes have, each as [`PoolBuilder`] has it.
#[allow(missing_docs, reason = "they are those of `PoolBuilder`")]
pub trait Builder: Sized {
    type Pool;

    fn processes(self, processes: usize) -> Self;
    fn initializer<F, A, R>(self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome;
    fn finalizer<F: Fn() + Stateless>(self, finalizer: F) -> Self;
    fn max_tasks_per_child(self, tasks: u64) -> Self;
    fn max_queued(self, tasks: usize) -> Self;
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
    fn memory_limit(self, bytes: u64) -> Self;
    fn pin_cpus(self) -> Self;
    fn pin_cpus_to(self, cpus: Vec<usize>) -> Self;
    fn stdout(self, output: Output) -> Self;
    fn stderr(self, output: Output) -> Self;
    fn max_memory_per_child(self, bytes: u64) -> Self;
    fn max_age(self, age: Duration) -> Self;
    fn idle_timeout(self, timeout: Duration) -> Self;
    fn min_processes(self, processes: usize) -> Self;
    fn forward_events(self) -> Self;
    fn forward_spans(self) -> Self;
    fn try_build(self) -> Result<Self::Pool, BuildError>;

    fn build(self) -> Self::Pool {
        self.try_build().expect("a pool can be built")
    }
}

/// A type of pool that a [`PoolBuilder`] builds.
#[doc(hidden)]
pub trait Built {
    type Builder;
}

impl<B> Built for WorkerPool<B> {
    type Builder = PoolBuilder<B>;
}

impl<B: Backend> Builder for PoolBuilder<B> {
    type Pool = WorkerPool<B>;

    fn processes(self, processes: usize) -> Self {
        Self::processes(self, processes)
    }

    fn initializer<F, A, R>(self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome,
    {
        Self::initializer(self, initializer, argument)
    }

    fn finalizer<F: Fn() + Stateless>(self, finalizer: F) -> Self {
        Self::finalizer(self, finalizer)
    }

    fn max_tasks_per_child(self, tasks: u64) -> Self {
        Self::max_tasks_per_child(self, tasks)
    }

    fn max_queued(self, tasks: usize) -> Self {
        Self::max_queued(self, tasks)
    }

    fn ring_capacity(self, bytes: usize) -> Self {
        Self::ring_capacity(self, bytes)
    }

    fn max_result_bytes(self, bytes: u64) -> Self {
        Self::max_result_bytes(self, bytes)
    }

    fn launch_timeout(self, timeout: std::time::Duration) -> Self {
        Self::launch_timeout(self, timeout)
    }

    fn on_worker_start(self, hook: impl Fn(&WorkerInfo) + Send + Sync + 'static) -> Self {
        Self::on_worker_start(self, hook)
    }

    fn on_worker_death(
        self,
        hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static,
    ) -> Self {
        Self::on_worker_death(self, hook)
    }

    fn env(self, key: &str, value: &str) -> Self {
        Self::env(self, key, value)
    }

    fn env_remove(self, key: &str) -> Self {
        Self::env_remove(self, key)
    }

    fn env_clear(self) -> Self {
        Self::env_clear(self)
    }

    fn current_dir(self, path: &Path) -> Self {
        Self::current_dir(self, path)
    }

    fn nice(self, increment: i32) -> Self {
        Self::nice(self, increment)
    }

    fn rlimit(self, resource: Resource, soft: u64, hard: u64) -> Self {
        Self::rlimit(self, resource, soft, hard)
    }

    fn memory_limit(self, bytes: u64) -> Self {
        Self::memory_limit(self, bytes)
    }

    fn pin_cpus(self) -> Self {
        Self::pin_cpus(self)
    }

    fn pin_cpus_to(self, cpus: Vec<usize>) -> Self {
        Self::pin_cpus_to(self, cpus)
    }

    fn stdout(self, output: Output) -> Self {
        Self::stdout(self, output)
    }

    fn stderr(self, output: Output) -> Self {
        Self::stderr(self, output)
    }

    fn max_memory_per_child(self, bytes: u64) -> Self {
        Self::max_memory_per_child(self, bytes)
    }

    fn max_age(self, age: Duration) -> Self {
        Self::max_age(self, age)
    }

    fn idle_timeout(self, timeout: Duration) -> Self {
        Self::idle_timeout(self, timeout)
    }

    fn min_processes(self, processes: usize) -> Self {
        Self::min_processes(self, processes)
    }

    fn forward_events(self) -> Self {
        Self::forward_events(self)
    }

    fn forward_spans(self) -> Self {
        Self::forward_spans(self)
    }

    fn try_build(self) -> Result<WorkerPool<B>, BuildError> {
        Self::build(self)
    }
}
