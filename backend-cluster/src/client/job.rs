//! A chunk that the client has, and what its agents have said of it.

use std::collections::VecDeque;
use std::time::Duration;

use procpool_core::{CallId, Completion, EncodedChunk, Outcome, OutcomeBatch};

use crate::message::PieceId;

/// What was submitted, until all its items have an outcome.
pub(crate) struct Job {
    pub(crate) call: CallId,
    pub(crate) chunk: EncodedChunk,
    pub(crate) completion: Completion,
    /// How many items have no outcome.
    pub(crate) left: usize,
    /// When the call's deadline is, on this process's clock.
    pub(crate) deadline: Option<Duration>,
    /// When it may be dispatched, until it is.
    pub(crate) due: Option<Duration>,
    /// The item emits values.
    pub(crate) emits: bool,
    /// Those that there was no room for, with the piece that they came from.
    pub(crate) values: VecDeque<(PieceId, Outcome)>,
    /// The outcome that comes behind them.
    pub(crate) last: Option<Outcomes>,
}

/// What some of its items have ended with.
pub(crate) enum Outcomes {
    /// All with values, or all with the same error.
    Batch(OutcomeBatch),
    /// The item with this index.
    One(usize, Outcome),
}
