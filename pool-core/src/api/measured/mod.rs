//! Receipts: what became of each item, and what it took.

mod call;
mod handle;
mod imap;

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::handle::decode_measured;
use crate::error::task_error::TaskError;
use crate::observe::receipt::Receipt;
use crate::task::chunk::Piece;

pub use self::call::CallWithReceipts;
pub use self::handle::{Collected, ReceiptHandle};
pub use self::imap::{ImapReceipts, ImapReceiptsLocal};

/// An item's outcome, and its [`Receipt`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Receipted<R> {
    /// What became of it.
    pub outcome: Result<R, TaskError>,
    /// What it took.
    pub receipt: Receipt,
}

impl<R: DeserializeOwned + 'static> Receipted<R> {
    /// Puts the outcomes of a piece's items behind those that are there.
    fn read_all(piece: Arc<Piece>, all: &mut impl Extend<Self>) {
        decode_measured(piece, |index, outcome, receipt| {
            let outcome = outcome.map_err(|error| error.at_index(index));
            all.extend([Self { outcome, receipt }]);
        });
    }

    /// The same of a call of one task, of which there is one piece.
    fn read_one(piece: Option<Arc<Piece>>) -> Self {
        let mut all = None;
        if let Some(piece) = piece {
            decode_measured(piece, |_, outcome, receipt| {
                all.get_or_insert(Self { outcome, receipt });
            });
        }
        all.unwrap_or_else(|| Self {
            outcome: Err(TaskError::closed()),
            receipt: Receipt::default(),
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
        let piece = Piece {
            count: 1,
            outcomes,
            ..Piece::failed(2, 1, TaskError::closed())
        };
        let mut all: Vec<Receipted<u64>> = Vec::new();
        Receipted::read_all(Arc::new(piece), &mut all);
        assert_eq!(all[0].outcome, Ok(7));
    }
}
