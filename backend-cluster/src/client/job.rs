//! A chunk that the client has, and what its agents have said of it.

use std::collections::VecDeque;
use std::task::Context;
use std::time::Duration;

use procpool_core::{CallId, Completion, EncodedChunk, Outcome, OutcomeBatch, TaskError};

use crate::dispatcher::Terms;
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
    /// What of it has not begun ends like this.
    pub(crate) withdrawn: Option<TaskError>,
    /// The item emits values.
    pub(crate) emits: bool,
    /// Those that there was no room for, with the piece that they came from.
    pub(crate) values: VecDeque<(PieceId, Outcome)>,
    /// The outcome that comes behind them.
    pub(crate) last: Option<Outcomes>,
}

impl Job {
    /// A chunk that was submitted now.
    pub(crate) fn new(chunk: EncodedChunk, completion: Completion, now: Duration) -> Self {
        let options = chunk.options();
        let is_delayed = !options.delay.is_zero();
        Self {
            call: completion.call(),
            left: completion.indices().len(),
            deadline: options.deadline.map(|left| now + left),
            due: is_delayed.then(|| now + options.delay),
            withdrawn: None,
            emits: options.emits.is_some(),
            chunk,
            completion,
            values: VecDeque::new(),
            last: None,
        }
    }

    /// What is to be known to dispatch it.
    pub(crate) fn terms(&self) -> Terms {
        let options = self.chunk.options();
        Terms {
            function: self.chunk.function().map_or(0, |it| it.number()),
            priority: options.priority,
            retries: options.retries,
            bytes: self.chunk.size(),
        }
    }

    /// Hands these on, unless they are to come behind values that wait. Says whether they were the
    /// last.
    pub(crate) fn deliver(&mut self, outcomes: Outcomes) -> bool {
        if !self.values.is_empty() {
            self.last = Some(outcomes);
            return false;
        }
        let count = match &outcomes {
            Outcomes::Batch(batch) => batch.indices().len(),
            Outcomes::One(..) => 1,
        };
        self.left -= count.min(self.left);
        // What has an outcome is refused: the dispatcher lets no second one through.
        let _ = match outcomes {
            Outcomes::Batch(batch) => self.completion.complete_batch(batch),
            Outcomes::One(index, outcome) => self.completion.complete(index, outcome),
        };
        self.left == 0
    }

    /// Gives the reader the next value that waits, if there is room for it. Says which piece it
    /// came from.
    pub(crate) fn emit(&mut self, context: &mut Context<'_>) -> Option<PieceId> {
        if self.values.is_empty() || self.completion.poll_room(context).is_pending() {
            return None;
        }
        let (piece, value) = self.values.pop_front()?;
        // Otherwise nobody wants it.
        let _ = self.completion.emit(value);
        Some(piece)
    }

    /// What comes behind the values, once none waits.
    pub(crate) fn take_last(&mut self) -> Option<Outcomes> {
        self.values.is_empty().then(|| self.last.take())?
    }
}

/// What some of its items have ended with.
pub(crate) enum Outcomes {
    /// All with values, or all with the same error.
    Batch(OutcomeBatch),
    /// The item with this index.
    One(usize, Outcome),
}
