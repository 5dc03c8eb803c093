//! The backpressure of an input: how many of its items are taken before results are.

use std::sync::Arc;
use std::time::Duration;

use crate::task::chunk_outcome::ChunkOutcome;
use crate::task::chunker::Chunker;
use crate::task::encode::Limit;
use crate::task::executor::Executor;
use crate::task::grain::Grain;
use crate::task::options::ValidatedOptions;

/// Decides how many items are taken, a bounded number ahead of the results.
#[derive(Clone)]
pub(crate) struct Flow {
    chunker: Chunker,
    pub(crate) buffer: Option<usize>,
    /// The most items in a chunk: a share of the buffer that leaves something for the other
    /// workers.
    share: usize,
    /// The most items under way.
    most: usize,
    /// Items taken from the input.
    pub(crate) taken: usize,
    /// Items whose outcome has come back.
    pub(crate) back: usize,
    /// Items that the caller has been given.
    pub(crate) given: usize,
}

impl Flow {
    pub(crate) fn new(options: &ValidatedOptions, executor: &dyn Executor) -> Self {
        let grain = Grain::of(executor);
        let buffer = options.buffer;
        Self {
            chunker: Chunker::new(options.chunksize, grain),
            buffer,
            share: share(buffer, grain),
            most: usize::MAX,
            taken: 0,
            back: 0,
            given: 0,
        }
    }

    /// A result is given before another item is taken.
    pub(crate) fn one_by_one(&mut self) {
        self.share = 1;
        self.most = 1;
    }

    /// How many more items may be taken now.
    fn room(&self, left: Option<usize>) -> usize {
        let under_way = self.taken - self.back;
        let window = self.chunker.window(left).min(self.most);
        let window = window.saturating_sub(under_way);
        match self.buffer {
            None => window,
            Some(buffer) => window.min(buffer.saturating_sub(self.taken - self.given)),
        }
    }

    /// How many items to take for the next chunk; `None`: none yet.
    pub(crate) fn next(&self, left: Option<usize>) -> Option<Limit> {
        let room = self.room(left);
        let size = (self.chunker.size(left) as usize).min(self.share);
        // A chunk that is much smaller than it should be is not worth the trip yet.
        if room == 0 || (room < size && self.taken > self.back) {
            return None;
        }
        Some(self.chunker.limit(size.min(room) as u32))
    }

    /// Pieces have come back, and the executor is like this now.
    pub(crate) fn observe(&mut self, parts: &[Arc<ChunkOutcome>], grain: Grain) {
        self.chunker.adapt(grain);
        if self.most > 1 {
            self.share = share(self.buffer, grain);
        }
        for part in parts {
            self.back += part.count as usize;
            let took = Duration::from_nanos(part.took_ns);
            self.chunker.observe(part.count, took);
        }
    }
}

/// The most items in a chunk: a small buffer is spread over all workers.
fn share(buffer: Option<usize>, grain: Grain) -> usize {
    buffer.map_or(usize::MAX, |buffer| buffer.div_ceil(grain.workers))
}
