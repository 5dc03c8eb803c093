//! What a look into a response ring brought.

use super::work_unit::Done;
use crate::task::chunk::Chunk;

/// What a look into the response ring brought.
#[derive(Default)]
pub(super) struct Drained {
    /// Something arrived.
    pub(super) news: bool,
    /// Loads that are done, with the nanoseconds that they took.
    pub(super) finished: Vec<(Done<Chunk>, u64)>,
}
