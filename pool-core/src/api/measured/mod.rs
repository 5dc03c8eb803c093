//! Receipts: what became of each item, and what it took.

mod call;
mod handle;
mod imap;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::handle::decode_measured;
use crate::error::task_error::TaskError;
use crate::task::chunk::Piece;
use crate::worker::WorkerInfo;

pub use self::call::CallWithReceipts;
pub use self::handle::{Collected, ReceiptHandle};
pub use self::imap::{ImapReceipts, ImapReceiptsLocal};

/// What one item took, and who ran it: see [`CallWith::receipts`](crate::CallWith::receipts).
///
/// What happened in the worker is the worker's word. It is cut to what can be (no time is longer
/// than the time since the submission), but a task that writes into its process's memory can make
/// its own worker say anything else.
///
/// An item that failed has a receipt, too, as far as things are known: what is not is `None` or
/// zero. Of an item whose worker died under it, or was killed at its deadline, it is known when it
/// began and that it ran until the pool heard of the death; of one that never began, what was done
/// in the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// How long the item waited: from its submission, or that of this attempt, until a worker began
    /// it. In a chunk that includes the items before it.
    pub queued: Option<Duration>,
    /// How long it took to encode the argument, in the caller, and the result, in the worker. A
    /// number takes no time that could be measured, and memory that is sent as it is none.
    pub encode: Duration,
    /// How long the function ran.
    pub run: Option<Duration>,
    /// How long it took to decode the argument, in the worker, and the result, in the caller.
    pub decode: Duration,
    /// Processor time that the worker used for the item, with all threads that it has.
    pub cpu: Option<Duration>,
    /// The most bytes of memory that the worker ever had resident until the item ended; no later
    /// than that, but perhaps for an earlier item.
    pub peak_rss: Option<u64>,
    /// The worker that had the item last; `None` where it was not begun, and in a pool without
    /// workers.
    pub worker: Option<WorkerInfo>,
    /// Which attempt this was, counted from 1; more only with
    /// [`retries`](crate::CallWith::retries). 0: none was begun.
    pub attempt: u32,
    /// Bytes of the encoded argument.
    pub argument_bytes: u64,
    /// Bytes of the encoded result; 0 where there is none.
    pub result_bytes: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = self.run {
            write!(f, "ran {run:.1?}")?;
        } else {
            f.write_str("not run")?;
        }
        if let Some(cpu) = self.cpu {
            write!(f, " ({cpu:.1?} of processor time)")?;
        }
        if let Some(worker) = &self.worker {
            write!(f, " in {worker}")?;
        }
        if self.attempt > 1 {
            write!(f, ", attempt {}", self.attempt)?;
        }
        if let Some(queued) = self.queued {
            write!(f, "; queued {queued:.1?}")?;
        }
        let Self { encode, decode, .. } = self;
        write!(f, "; encode {encode:.1?}, decode {decode:.1?}")?;
        write!(
            f,
            "; {} bytes in, {} out",
            self.argument_bytes, self.result_bytes
        )?;
        if let Some(peak) = self.peak_rss {
            write!(f, "; peak {:.1} MiB", peak as f64 / f64::from(1 << 20))?;
        }
        Ok(())
    }
}

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
