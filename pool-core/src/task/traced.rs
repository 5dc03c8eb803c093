//! Chunks that are traced.

use std::borrow::Cow;

use crate::observe::tracer::Tracer;

/// That a chunk is traced: where to, and what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Tracer,
    /// What its call is called.
    pub(crate) name: Cow<'static, str>,
}
