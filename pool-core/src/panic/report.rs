//! What is reported of a panic.

use serde::{Deserialize, Serialize};

use super::backtrace::Backtrace;

/// A panic, as the worker's hook saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PanicReport {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<Backtrace>,
}
