//! A chunk on its way through the engine.

use std::sync::Arc;

use super::work_unit::{Done, InFlight, WorkUnit};
#[cfg(any(fuzzing, test))]
use crate::error::task_error::TaskError;
use crate::observe::stats::Stats;
use crate::panic::catch::catch;
use crate::shm::protocol::{FRAME_HEADER, FrameHeader, FrameKind};
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink, Decided, Outcomes};

impl WorkUnit for Chunk {
    type Outcomes = Outcomes;

    fn count(&self) -> u32 {
        self.count
    }

    fn split(self, at: u32) -> (Self, Self) {
        Self::split(self, at)
    }

    fn is_counted(&self) -> bool {
        !self.is_initializer
    }

    #[inline]
    fn is_refused(&self) -> bool {
        self.refusal().is_some()
    }

    #[inline]
    fn position(&self) -> Option<usize> {
        Self::position(self)
    }

    #[inline]
    fn priority(&self) -> i32 {
        self.control().map_or(0, |control| control.priority)
    }

    fn outcomes(&self) -> Outcomes {
        Outcomes::with_capacity(self.count)
    }
}

/// Whether the worker notes when each item begins: for its deadline, or since something should be
/// known of a measured item that is lost.
#[inline]
pub(super) fn notes_beginnings(chunk: &Chunk) -> bool {
    chunk.timeout.is_some() || chunk.item_metrics().is_some()
}

/// The header of the frame that brings a chunk to a worker.
#[inline]
pub(super) fn header(chunk: &Chunk) -> [u8; FRAME_HEADER] {
    FrameHeader {
        kind: if chunk.is_initializer {
            FrameKind::Initialize
        } else {
            FrameKind::Run
        },
        deadline: notes_beginnings(chunk),
        measured: chunk.item_metrics().is_some(),
        passes: !chunk.descriptors().is_empty(),
        entry: chunk.entry.number(),
        items: chunk.count,
        context: chunk.context().len() as u32,
        bytes: chunk.items.len() as u64,
    }
    .write()
}

/// Outcomes on their way to who waits for them, to be delivered without a lock.
pub(super) struct Delivery {
    pub(super) attended: bool,
    sink: Arc<dyn CompletionSink>,
    part: ChunkOutcome,
    /// Takes in the events of the items, before the span that the call was made in is let go of.
    flush_events: Option<Box<FlushEvents>>,
}

type FlushEvents = Box<dyn FnOnce() + Send>;

impl Delivery {
    /// `None`: there are no items, or nobody waits for them.
    pub(super) fn new(done: Done<Chunk>, took_ns: u64) -> Option<Self> {
        let Done {
            unit: mut chunk,
            outcomes,
        } = done;
        chunk.take_sink().map(|sink| Self {
            attended: chunk.attended,
            flush_events: None,
            part: ChunkOutcome {
                first: chunk.first,
                count: chunk.count,
                took_ns,
                outcomes,
                ext: chunk.take_ext(),
            },
            sink,
        })
    }

    /// What wakes who waits for a value that a task has emitted.
    pub(super) fn of_emission(sink: Arc<dyn CompletionSink>) -> Self {
        Self {
            attended: true,
            sink,
            part: ChunkOutcome::of_emission(),
            flush_events: None,
        }
    }

    /// The same where every item fails for the same reason.
    #[cfg(any(fuzzing, test))]
    pub(super) fn failed(chunk: Chunk, error: TaskError) -> Option<Self> {
        let outcomes = Outcomes::All(error);
        Self::new(
            Done {
                unit: chunk,
                outcomes,
            },
            0,
        )
    }

    /// Whether its call may want to try items again.
    #[inline]
    pub(super) fn is_undecided(&self) -> bool {
        self.part.is_undecided()
    }

    /// Lets the call decide. Not under the lock, since it asks the user's functions.
    pub(super) fn decide(self) -> Verdict {
        let count = self.count();
        // The user's functions are caught one by one. A panic here is a mistake of this crate's,
        // and costs these items alone.
        let (ended, again) = catch(|| self.ask()).unwrap_or_default();
        Verdict {
            count,
            ended,
            again,
        }
    }

    /// What stays, and what is tried again.
    fn ask(self) -> (Vec<Self>, Vec<Chunk>) {
        let Self {
            attended,
            sink,
            part,
            flush_events,
        } = self;
        let Decided { ended, again } = sink.decide(part);
        if let Some(flush_events) = flush_events {
            flush_events();
        }
        let ended = ended.into_iter().map(|part| Self {
            attended,
            sink: sink.clone(),
            part,
            flush_events: None,
        });
        let again = again.into_iter();
        let again = again.map(|it| Chunk::again(it, sink.clone()));
        (ended.collect(), again.collect())
    }

    pub(super) fn deliver(mut self) {
        self.part.close_descriptors();
        self.part.tell_tracer();
        // The span that the call was made in may be closed when it is let go of.
        let origin = self.part.ext.as_mut().and_then(|it| it.origin.take());
        self.sink.complete(self.part);
        if let Some(flush_events) = self.flush_events {
            flush_events();
        }
        drop(origin);
    }

    #[cfg(feature = "tracing")]
    pub(super) fn has_origin(&self) -> bool {
        let ext = self.part.ext.as_ref();
        ext.is_some_and(|ext| ext.origin.is_some())
    }

    /// Does this when the outcomes are delivered, before the origin is let go of.
    #[cfg(feature = "tracing")]
    pub(super) fn flush_events_by(&mut self, flush_events: impl FnOnce() + Send + 'static) {
        self.flush_events = Some(Box::new(Box::new(flush_events)));
    }

    /// Counts its items by their outcomes.
    pub(super) fn count_in(&self, stats: &mut Stats) {
        self.part.count_in(stats);
    }

    /// How many items it has.
    pub(super) fn count(&self) -> u64 {
        self.part.count.into()
    }
}

/// What was decided of a [`Delivery`].
pub(super) struct Verdict {
    /// How many items it had.
    pub(super) count: u64,
    /// What stays of it.
    pub(super) ended: Vec<Delivery>,
    /// The items that are tried again.
    pub(super) again: Vec<Chunk>,
}

/// A chunk in the pool's queue is most of what a waiting task costs.
const _: () = assert!(size_of::<Chunk>() <= 88);

/// What is longer is moved by a call, which reads in larger pieces than those that were just
/// written, and waits for them.
const _: () = assert!(size_of::<Delivery>() <= 88 && size_of::<InFlight<Chunk>>() <= 128);
