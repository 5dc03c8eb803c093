//! Metrics: what became of each item, and what it took.

mod call;
mod handle;
mod imap;

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::handle::decode_measured;
use crate::error::task_error::TaskError;
use crate::observe::task_metrics::TaskMetrics;
use crate::task::chunk::ChunkOutcome;

pub use self::call::MeasuredCall;
pub use self::handle::{Collected, MeasuredHandle};
pub use self::imap::{ImapMeasured, ImapMeasuredLocal};

/// An item's outcome, and its [`TaskMetrics`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Measured<R> {
    /// What became of it.
    pub outcome: Result<R, TaskError>,
    /// What it took.
    pub metrics: TaskMetrics,
}

impl<R: DeserializeOwned + 'static> Measured<R> {
    /// Puts the outcomes of a chunk's items behind those that are there.
    fn read_all(piece: Arc<ChunkOutcome>, all: &mut impl Extend<Self>) {
        decode_measured(piece, |index, outcome, metrics| {
            let outcome = outcome.map_err(|error| error.at_index(index));
            all.extend([Self { outcome, metrics }]);
        });
    }

    /// The same of a call of one task, of which there is one outcome.
    fn read_one(piece: Option<Arc<ChunkOutcome>>) -> Self {
        let mut all = None;
        if let Some(piece) = piece {
            decode_measured(piece, |_, outcome, metrics| {
                all.get_or_insert(Self { outcome, metrics });
            });
        }
        all.unwrap_or_else(|| Self {
            outcome: Err(TaskError::closed()),
            metrics: TaskMetrics::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::chunk::Outcomes;

    /// What is left of a chunk that was taken back has one item, and its outcome as several have.
    #[test]
    fn a_piece_of_one_of_several_is_read() {
        let mut outcomes = Outcomes::with_capacity(3);
        outcomes.push_value(&7_u64.to_le_bytes());
        let piece = ChunkOutcome {
            count: 1,
            outcomes,
            ..ChunkOutcome::failed(2, 1, TaskError::closed())
        };
        let mut all: Vec<Measured<u64>> = Vec::new();
        Measured::read_all(Arc::new(piece), &mut all);
        assert_eq!(all[0].outcome, Ok(7));
    }
}
