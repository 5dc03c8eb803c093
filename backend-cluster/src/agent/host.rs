//! The local pools of an agent: one for each client.

use std::collections::HashMap;
use std::sync::Arc;

use procpool_core::{
    Cancel, EncodedChunk, Executor, Outcome, Pool, Submitted, TaskError, TaskErrorKind,
};
use procpool_spawn::SpawnPool;

use super::contents::Contents;
use super::options::Backend;
use crate::message::ClientId;

/// The pools.
pub(super) struct Host {
    processes: usize,
    backend: Backend,
    pools: HashMap<ClientId, SpawnPool>,
}

/// A piece that runs.
pub(super) struct Running(Submitted);

impl Running {
    pub(super) fn cancel(&self, how: Cancel) {
        self.0.cancel(how);
    }

    pub(super) fn poll_value(
        &self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Outcome>> {
        self.0.poll_value(context)
    }
}

impl Host {
    pub(super) fn new(processes: usize, backend: Backend) -> Result<Self, String> {
        Ok(Self {
            processes,
            backend,
            pools: HashMap::new(),
        })
    }

    /// A client has come, whose workers are to be like this.
    pub(super) fn welcome(&mut self, _client: ClientId, _options: &[u8]) {}

    /// There are more values.
    pub(super) fn provide(&mut self, _client: ClientId, _contents: &Contents) {}

    pub(super) fn begin(
        &mut self,
        client: ClientId,
        chunk: &EncodedChunk,
        sink: impl Fn(usize, Outcome) + Send + Sync + 'static,
    ) -> Result<Running, TaskError> {
        let executor = self.executor(client)?;
        let submitted = if chunk.options().emits.is_some() {
            chunk.stream_to(&executor, sink)
        } else {
            chunk.submit_to(&executor, sink)
        };
        Ok(Running(submitted))
    }

    fn executor(&mut self, client: ClientId) -> Result<Arc<dyn Executor>, TaskError> {
        if let Some(pool) = self.pools.get(&client) {
            return Ok(pool.executor().clone());
        }
        let mut builder = SpawnPool::builder().processes(self.processes);
        for name in super::variables::ALL {
            builder = builder.env_remove(name);
        }
        let pool = builder
            .build()
            .map_err(|error| TaskError::other(TaskErrorKind::Launch, error.to_string()))?;
        let executor = pool.executor().clone();
        self.pools.insert(client, pool);
        Ok(executor)
    }

    /// The client is gone, and so is whatever runs for it.
    pub(super) fn forget(&mut self, client: ClientId) {
        if let Some(pool) = self.pools.remove(&client) {
            pool.terminate();
        }
    }
}
