//! Types for arguments and results that carry what the pools' own form cannot.

#[cfg(feature = "json")]
pub(crate) mod json;
