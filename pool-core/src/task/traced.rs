//! Chunks that are traced.

use super::chunk::ChunkOutcome;
use crate::observe::trace::Tracer;
use crate::sys;
use crate::worker::function::FunctionId;

/// That a chunk is traced: where to, and what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Tracer,
    /// `None`: an initializer.
    pub(crate) entry: Option<FunctionId>,
    /// Nobody else wants to know.
    pub(crate) is_all: bool,
}

impl Traced {
    /// Tells of the items of a piece that is about to be delivered.
    pub(crate) fn tell(&self, piece: &ChunkOutcome) {
        let Some(item_metrics) = piece.item_metrics() else {
            return;
        };
        let function = self.entry.map_or("initializer", FunctionId::name);
        let now = sys::now_ns();
        let mut events = Vec::with_capacity(piece.count as usize);
        piece.visit(piece.first, |index, outcome| {
            let error = outcome.err().map(|error| error.kind());
            events.push(item_metrics.event(function, index - piece.first, index, error, now));
        });
        self.tracer.tell_all(events);
    }
}
