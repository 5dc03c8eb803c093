//! Chunks that are traced.

use super::chunk::Piece;
use crate::observe::trace::Tracer;
use crate::sys;
use crate::worker::function::Entry;

/// That a chunk is traced: where to, and what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Tracer,
    /// `None`: an initializer.
    pub(crate) entry: Option<Entry>,
    /// Nobody else wants to know.
    pub(crate) is_all: bool,
}

impl Traced {
    /// Tells of the items of a piece that is about to be delivered.
    pub(crate) fn tell(&self, piece: &Piece) {
        let Some(ledger) = piece.ledger() else {
            return;
        };
        let function = self.entry.map_or("initializer", Entry::name);
        let now = sys::now_ns();
        let mut events = Vec::with_capacity(piece.count as usize);
        piece.visit(piece.first, |index, outcome| {
            let error = outcome.err().map(|error| error.kind());
            events.push(ledger.event(function, index - piece.first, index, error, now));
        });
        self.tracer.tell_all(events);
    }
}
