//! A chunk on its way through the engine.

use std::time::Duration;

use super::scheduler::Load;
use crate::call::{Chunk, Outcomes, Piece, Sink};
use crate::protocol::{FRAME_HEADER, FrameHeader, FrameKind};

/// A chunk and the outcomes that it has so far.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) chunk: Chunk,
    pub(super) outcomes: Outcomes,
    /// It is not a task of the user's but the worker's initializer.
    pub(super) is_initializer: bool,
}

impl Work {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self {
            outcomes: Outcomes::with_capacity(chunk.count),
            chunk,
            is_initializer: false,
        }
    }

    pub(super) fn initializer(chunk: Chunk) -> Self {
        Self {
            is_initializer: true,
            ..Self::new(chunk)
        }
    }

    /// The header of the frame that brings it to a worker.
    pub(super) fn header(&self) -> [u8; FRAME_HEADER] {
        FrameHeader {
            kind: if self.is_initializer {
                FrameKind::Initialize
            } else {
                FrameKind::Run
            },
            deadline: self.chunk.timeout.is_some(),
            entry: self.chunk.entry.number(),
            items: self.chunk.count,
            bytes: self.chunk.items.len() as u64,
        }
        .write()
    }

    /// The outcomes, to be given to the sink. `None`: it has no items, or nobody waits for them.
    pub(super) fn into_piece(self, took: Duration) -> Option<Delivery> {
        let Self {
            chunk,
            outcomes,
            is_initializer,
        } = self;
        (chunk.count > 0 && !is_initializer).then(|| Delivery {
            attended: chunk.attended,
            piece: Piece {
                first: chunk.first,
                count: chunk.count,
                took,
                outcomes,
            },
            sink: chunk.sink,
        })
    }

    /// The same where every item fails for the same reason.
    pub(super) fn into_failure(self, error: crate::TaskError) -> Option<Delivery> {
        Self {
            outcomes: Outcomes::All(error),
            ..self
        }
        .into_piece(Duration::ZERO)
    }
}

impl Load for Work {
    fn count(&self) -> u32 {
        self.chunk.count
    }

    fn split(self, at: u32) -> (Self, Self) {
        // Outcomes are of the items before `at`: a load is split behind what it has done.
        let Self {
            chunk,
            outcomes,
            is_initializer,
        } = self;
        let (head, tail) = chunk.split(at);
        let tail = Self {
            outcomes: Outcomes::with_capacity(tail.count),
            chunk: tail,
            is_initializer,
        };
        let head = Self {
            chunk: head,
            outcomes,
            is_initializer,
        };
        (head, tail)
    }

    fn is_abandoned(&self) -> bool {
        self.chunk.sink.is_abandoned()
    }
}

/// Outcomes on their way to who waits for them, to be delivered without a lock.
pub(super) struct Delivery {
    pub(super) attended: bool,
    sink: std::sync::Arc<dyn Sink>,
    piece: Piece,
}

impl Delivery {
    pub(super) fn deliver(self) {
        self.sink.complete(self.piece);
    }

    /// How many items it tells of, and how many of those are known to have failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = u64::from(self.piece.count);
        let failed = match &self.piece.outcomes {
            Outcomes::One(Some(Ok(_))) => 0,
            Outcomes::One(_) | Outcomes::All(_) => count,
            Outcomes::Many { errors, .. } => errors.len() as u64,
        };
        (count, failed)
    }
}
