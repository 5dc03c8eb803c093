//! Chunks that are traced.

use crate::observe::trace::Tracer;
use crate::worker::function::FunctionId;

/// That a chunk is traced: where to, and what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Tracer,
    /// `None`: an initializer.
    pub(crate) entry: Option<FunctionId>,
    /// Nobody else wants to know.
    pub(crate) is_all: bool,
}
