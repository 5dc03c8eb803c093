//! One attempt at an item.

use serde::{Deserialize, Serialize};

use crate::process::worker_info::WorkerInfo;
use crate::shm::item_timing::ItemTiming;

/// What came from the worker of an item that it ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) worker: Option<WorkerInfo>,
    pub(crate) measure: ItemTiming,
    /// The worker has measured it itself. Otherwise only the time is known.
    pub(crate) is_whole: bool,
    pub(crate) result_bytes: u64,
}
