//! What is reported of a panic.

use serde::{Deserialize, Serialize};

use super::backtrace::Backtrace;

/// A panic, as the worker's hook saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PanicReport {
    pub(crate) message: String,
    pub(crate) location: Option<String>,
    pub(crate) backtrace: Option<Backtrace>,
    /// The name of the thread, if it is not the one that runs tasks: its starter may have
    /// been an earlier task. Known only of a panic that has ended its process.
    #[serde(skip)]
    pub(crate) thread: Option<String>,
}
