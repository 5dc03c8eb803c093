//! A pool of this process's, of whichever kind.

use std::any::Any;
use std::sync::Arc;

use procpool_core::{Backend, BuildError, Executor, Output, Pool, PoolBuilder, WorkerOptions};
use procpool_spawn::SpawnPool;

/// Where workers come from.
pub(crate) enum HostBackend {
    /// They are this executable, executed again.
    Spawn,
    /// They are forked from this server, which was started while the agent had one thread.
    #[cfg(feature = "fork")]
    Fork(procpool_fork::ForkServer),
}

/// A pool. To drop it waits for a moment.
pub(super) struct LocalPool {
    executor: Arc<dyn Executor>,
    /// What it lives as long as.
    _pool: Box<dyn Any + Send + Sync>,
}

impl Pool for LocalPool {
    /// What runs tasks in it, which may live longer.
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl LocalPool {
    /// It waits until the workers are ready.
    pub(super) fn build(
        backend: &HostBackend,
        processes: usize,
        options: WorkerOptions,
        [stdout, stderr]: [Output; 2],
    ) -> Result<Self, BuildError> {
        match backend {
            HostBackend::Spawn => {
                build_of(SpawnPool::builder(), processes, options, stdout, stderr)
            }
            #[cfg(feature = "fork")]
            HostBackend::Fork(server) => {
                let builder = procpool_fork::ForkPool::builder().fork_server(server);
                build_of(builder, processes, options, stdout, stderr)
            }
        }
    }
}

fn build_of<B: Backend + 'static>(
    builder: PoolBuilder<B>,
    processes: usize,
    options: WorkerOptions,
    stdout: Output,
    stderr: Output,
) -> Result<LocalPool, BuildError> {
    let pool = builder
        .with_worker_options(options)
        .processes(processes)
        .stdout(stdout)
        .stderr(stderr)
        .build()?;
    Ok(LocalPool {
        executor: pool.executor().clone(),
        _pool: Box::new(pool),
    })
}
