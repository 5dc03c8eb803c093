//! The span that a call was made in.

#[cfg(feature = "tracing")]
pub use crate::events::Origin;

/// Without the feature `tracing` there is none.
#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub enum Origin {}
