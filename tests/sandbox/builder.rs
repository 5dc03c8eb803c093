//! What builds pools in a sandbox, as the suite builds those of processes.

use std::path::Path;
use std::time::Duration;

use procpool::backend::Backend;
use procpool::{
    BuildError, InitializerOutcome, Output, PoolBuilder, Resource, Sandbox, Stateless, WorkerExit,
    WorkerInfo, WorkerPool,
};
use procpool_conformance::Builder;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A builder, and the sandbox that it adds.
pub(crate) struct ConfinedBuilder<B>(PoolBuilder<B>, Sandbox);

impl<B: Backend> ConfinedBuilder<B> {
    pub(crate) fn new(builder: PoolBuilder<B>, sandbox: Sandbox) -> Self {
        Self(builder, sandbox)
    }
}

macro_rules! as_it_is {
    ($($option:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $option(self, $($argument: $type),*) -> Self {
            Self(PoolBuilder::$option(self.0, $($argument),*), self.1)
        })*
    };
}

impl<B: Backend> Builder for ConfinedBuilder<B> {
    type Pool = WorkerPool<B>;

    as_it_is! {
        processes(processes: usize);
        max_tasks_per_child(tasks: u64);
        max_queued(tasks: usize);
        ring_capacity(bytes: usize);
        max_result_bytes(bytes: u64);
        launch_timeout(timeout: Duration);
        on_worker_start(hook: impl Fn(&WorkerInfo) + Send + Sync + 'static);
        on_worker_death(hook: impl Fn(&WorkerInfo, &WorkerExit) + Send + Sync + 'static);
        env(key: &str, value: &str);
        env_remove(key: &str);
        env_clear();
        current_dir(path: &Path);
        nice(increment: i32);
        rlimit(resource: Resource, soft: u64, hard: u64);
        memory_limit(bytes: u64);
        pin_cpus();
        pin_cpus_to(cpus: Vec<usize>);
        stdout(output: Output);
        stderr(output: Output);
        max_memory_per_child(bytes: u64);
        max_age(age: Duration);
        idle_timeout(timeout: Duration);
        min_processes(processes: usize);
        forward_events();
        forward_spans();
    }

    fn initializer<F, A, R>(self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome,
    {
        Self(
            PoolBuilder::initializer(self.0, initializer, argument),
            self.1,
        )
    }

    fn finalizer<F: Fn() + Stateless>(self, finalizer: F) -> Self {
        Self(PoolBuilder::finalizer(self.0, finalizer), self.1)
    }

    fn try_build(self) -> Result<WorkerPool<B>, BuildError> {
        self.0.sandbox(self.1).build()
    }
}
