//! What decides over the sizes of chunks besides the call.

use super::chunking::Chunking;
use super::executor::Executor;

/// What an executor is like, as of now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grain {
    pub(crate) workers: usize,
    pub(crate) chunking: Chunking,
}

impl Grain {
    pub(crate) fn of(executor: &dyn Executor) -> Self {
        Self {
            workers: executor.processes().max(1),
            chunking: executor.chunking(),
        }
    }
}
