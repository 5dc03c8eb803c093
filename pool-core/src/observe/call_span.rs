//! The span that a call was made in.

#[cfg(feature = "tracing")]
pub use super::events::Origin;

/// Without the feature `tracing` there is none.
#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub enum Origin {}
