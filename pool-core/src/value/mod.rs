//! Arguments and results, and types for them that carry what the pools' own form cannot.

#[cfg(feature = "json")]
pub(crate) mod json;
pub(crate) mod portable;
