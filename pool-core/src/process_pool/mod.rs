//! The pool whose workers are processes, and its builder: once, for every backend.

pub(crate) mod builder;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::api::pool::Pool;
use crate::backend::launcher::Backend;
use crate::engine::Engine;
use crate::error::build_error::BuildError;
use crate::task::executor::Executor;
use builder::PoolBuilder;

/// A pool of worker processes that a backend `B` starts.
///
/// A clone is the same pool. Dropping the last one terminates it.
pub struct WorkerPool<B> {
    engine: Arc<Engine>,
    backend: PhantomData<fn() -> B>,
}

impl<B> WorkerPool<B> {
    fn new_with(engine: Engine) -> Self {
        Self {
            engine: Arc::new(engine),
            backend: PhantomData,
        }
    }
}

impl<B: Backend + Default> WorkerPool<B> {
    /// A pool with all options at their defaults.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// A pool with options.
    pub fn builder() -> PoolBuilder<B> {
        PoolBuilder::default()
    }
}

impl<B> Pool for WorkerPool<B> {
    fn executor(&self) -> &Arc<dyn Executor> {
        self.engine.executor()
    }
}

impl<B> Clone for WorkerPool<B> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            backend: PhantomData,
        }
    }
}

impl<B> fmt::Debug for WorkerPool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("engine", &self.engine)
            .finish()
    }
}
