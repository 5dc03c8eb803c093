//! Metrics: what became of each item, and what it took.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::decode::{ItemOutcome, decode_measured};
use crate::error::task_error::TaskError;
use crate::observe::task_metrics::TaskMetrics;
use crate::task::chunk_outcome::ChunkOutcome;

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
    /// That of a call of one task, of which there is one outcome.
    pub(super) fn read_one(part: Option<Arc<ChunkOutcome>>) -> Self {
        let mut all = None;
        if let Some(part) = part {
            decode_measured(part, |_, outcome, metrics| {
                all.get_or_insert(Self { outcome, metrics });
            });
        }
        all.unwrap_or_else(|| Self::refused(TaskError::closed()))
    }
}

impl<R: DeserializeOwned + 'static> ItemOutcome for Measured<R> {
    fn refused(error: TaskError) -> Self {
        Self {
            outcome: Err(error),
            metrics: TaskMetrics::default(),
        }
    }

    fn read_all(part: Arc<ChunkOutcome>, all: &mut Vec<Self>) {
        decode_measured(part, |index, outcome, metrics| {
            let outcome = outcome.map_err(|error| error.at_index(index));
            all.push(Self { outcome, metrics });
        });
    }

    fn is_success(&self) -> bool {
        self.outcome.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::chunk_outcome::Outcomes;

    /// What is left of a chunk that was taken back has one item, and its outcome as several have.
    #[test]
    fn a_piece_of_one_of_several_is_read() {
        let mut outcomes = Outcomes::with_capacity(3);
        outcomes.push_value(&7_u64.to_le_bytes());
        let part = ChunkOutcome {
            count: 1,
            outcomes,
            ..ChunkOutcome::failed(2, 1, TaskError::closed())
        };
        let mut all: Vec<Measured<u64>> = Vec::new();
        Measured::read_all(Arc::new(part), &mut all);
        assert_eq!(all[0].outcome, Ok(7));
    }
}
