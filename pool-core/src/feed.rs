//! From an iterator of arguments to chunks in a pool, and back to values: the loop that `map`,
//! `imap` and `imap_unordered` share.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Fuse;
use std::sync::Arc;
#[cfg(feature = "stream")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bytes::Bytes;
use crate::call::{Chunk, Piece};
use crate::chunker::Chunker;
use crate::encode::{Items, Limit, Stop};
use crate::entry::Entry;
use crate::executor::{Cancel, Executor};
use crate::extras::Extras;
use crate::handle::Collector;
use crate::options::CheckedOptions;
use crate::origin::Origin;
use crate::progress::Progress;
use crate::sys;

/// How long an executor's thread takes and encodes items in one go. What else the executor runs
/// waits meanwhile; what a turn costs beside it is less than a microsecond.
#[cfg(feature = "stream")]
const FILL_FOR: Duration = Duration::from_micros(100);

/// Feeds a pool from an iterator, a bounded number of items ahead of the results.
///
/// Dropping it cancels what is under way.
pub(crate) struct Feed<I: Iterator> {
    executor: Arc<dyn Executor>,
    call: CallSite,
    input: Fuse<I>,
    /// What the input panicked with; to be thrown on when all items before are through.
    panic: Option<Box<dyn Any + Send>>,
    chunker: Chunker,
    buffer: Option<usize>,
    /// Items taken from the input.
    taken: usize,
    /// Items whose outcome has come back.
    back: usize,
    /// Items that the caller has been given.
    given: usize,
    collector: Arc<Collector>,
    /// Pieces that nobody has asked for.
    ready: Vec<Arc<Piece>>,
    is_exhausted: bool,
    /// Whoever asks for pieces drives the pool until there are some.
    drives: bool,
    progress: Progress,
}

/// What the chunks of one call have in common.
pub(crate) struct CallSite {
    pub(crate) entry: Entry,
    pub(crate) options: CheckedOptions,
    /// The span that the call was made in, if it matters.
    pub(crate) origin: Option<Arc<Origin>>,
}

impl CallSite {
    /// Room for encoded arguments.
    pub(crate) fn items(&self) -> Items {
        Items {
            is_timed: self.options.receipts,
            ..Items::default()
        }
    }

    /// A chunk of this call.
    pub(crate) fn chunk(
        &self,
        first: usize,
        count: u32,
        items: Bytes,
        attended: bool,
        sink: Arc<dyn crate::call::Sink>,
    ) -> Chunk {
        Chunk {
            entry: self.entry,
            first,
            count,
            items,
            timeout: self.options.timeout,
            retries: self.options.retries,
            attended,
            is_initializer: false,
            deaths: 0,
            extras: Extras::of_call(self.options.receipts, self.origin.as_ref()),
            sink,
        }
    }
}

impl<A, I> Feed<I>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    pub(crate) fn new(
        executor: Arc<dyn Executor>,
        call: CallSite,
        input: I,
        progress: Progress,
    ) -> Self {
        let chunker = Chunker::new(call.options.chunksize, executor.processes());
        Self {
            executor,
            buffer: call.options.buffer,
            call,
            input: input.fuse(),
            panic: None,
            chunker,
            taken: 0,
            back: 0,
            given: 0,
            collector: Arc::new(Collector::default()),
            ready: Vec::new(),
            is_exhausted: false,
            drives: true,
            progress,
        }
    }

    /// How many more items the input has, if it says.
    fn left(&self) -> Option<usize> {
        match self.input.size_hint() {
            (low, Some(high)) if low == high => Some(low),
            _ => None,
        }
    }

    /// How many more items may be taken now.
    fn room(&self) -> usize {
        let under_way = self.taken - self.back;
        let window = self.chunker.window(self.left()).saturating_sub(under_way);
        match self.buffer {
            None => window,
            Some(buffer) => window.min(buffer.saturating_sub(self.taken - self.given)),
        }
    }

    /// Takes as many items from the input as there is room for, and hands them to the pool; `false`:
    /// there was no time for all.
    fn fill(&mut self, until: Option<Instant>) -> bool {
        self.progress.begin(self.input.size_hint());
        while !self.is_exhausted {
            let room = self.room();
            let mut size = self.chunker.size(self.left()) as usize;
            if let Some(buffer) = self.buffer {
                // A small buffer is spread over all workers.
                size = size.min(buffer.div_ceil(self.executor.processes().max(1)));
            }
            // A chunk that is much smaller than it should be is not worth the trip yet.
            if room == 0 || (room < size && self.taken > self.back) {
                return true;
            }
            self.send_chunk(size.min(room) as u32, until);
            if until.is_some_and(|until| until <= sys::now()) {
                return false;
            }
        }
        true
    }

    fn send_chunk(&mut self, size: u32, until: Option<Instant>) {
        let first = self.taken;
        let mut items = self.call.items();
        let limit = Limit {
            until,
            ..self.chunker.limit(size)
        };
        let stop = items.extend(&mut self.input, limit);
        self.taken += items.count;
        if items.count > 0 {
            self.collector.expect(items.count);
            let count = items.count as u32;
            let sink = self.collector.clone();
            let mut chunk = (self.call).chunk(first, count, items.bytes.into(), self.drives, sink);
            chunk.attach(items.attachments);
            chunk.note_encoding(&items.times);
            self.executor.submit(chunk);
        }
        match stop {
            Stop::Full => {}
            Stop::Exhausted => {
                self.is_exhausted = true;
                self.progress.end_known(self.taken);
            }
            Stop::Failed(error) => {
                let piece = Piece::failed(self.taken, 1, error);
                self.taken += 1;
                self.ready.push(Arc::new(piece));
            }
            Stop::Panicked(panic) => {
                self.is_exhausted = true;
                self.panic = Some(panic);
            }
        }
    }

    /// The next pieces in whatever order they come, at least one; none when all are through.
    /// Waits for them, driving the pool.
    pub(crate) fn next_pieces(&mut self) -> Vec<Arc<Piece>> {
        loop {
            self.fill(None);
            if let Some(pieces) = self.take() {
                return pieces;
            }
            if self.taken > self.back {
                let collector = &self.collector;
                self.executor
                    .drive(&mut |waker| collector.poll_any(waker), None);
            }
            // Otherwise there was no room, for the caller holds all that was taken: it asks for
            // more only when it has given that away.
        }
    }

    /// The same as a future does it: without waiting, and, if it is asked once in each poll to
    /// `fill`, without keeping the thread for long.
    #[cfg(feature = "stream")]
    pub(crate) fn poll_pieces(
        &mut self,
        context: &mut Context<'_>,
        fill: bool,
    ) -> Poll<Vec<Arc<Piece>>> {
        let is_full = fill && self.fill(Some(sys::now() + FILL_FOR));
        loop {
            if let Some(pieces) = self.take() {
                return Poll::Ready(pieces);
            }
            if !is_full {
                // It is the others' turn.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.taken > self.back && !self.collector.poll_any(Some(context.waker())) {
                return Poll::Pending;
            }
        }
    }

    /// From now on `poll_pieces` is asked, and nobody drives the pool.
    #[cfg(feature = "stream")]
    pub(crate) fn stop_driving(&mut self) {
        self.drives = false;
        if self.taken > self.back {
            self.executor.hand_over();
        }
    }

    /// The pieces that are there, none of them when all are through; `None`: they must be waited for.
    fn take(&mut self) -> Option<Vec<Arc<Piece>>> {
        let mut pieces = std::mem::take(&mut self.ready);
        pieces.extend(self.collector.take());
        for piece in &pieces {
            self.back += piece.count as usize;
            let took = Duration::from_nanos(piece.took_ns);
            self.chunker.observe(piece.count, took);
            if self.progress.is_shown() {
                (self.progress).add(piece.count.into(), piece.failures() as u64);
            }
        }
        let is_over = self.is_exhausted && self.taken == self.back;
        if is_over && self.panic.is_none() {
            self.progress.finish();
        }
        (is_over || !pieces.is_empty()).then_some(pieces)
    }

    /// How many items have not been given to the caller, as [`Iterator::size_hint`] says it.
    pub(crate) fn remaining(&self) -> (usize, Option<usize>) {
        let taken = self.taken - self.given;
        if self.is_exhausted {
            return (taken, Some(taken));
        }
        let (low, high) = self.input.size_hint();
        (
            low.saturating_add(taken),
            high.and_then(|high| high.checked_add(taken)),
        )
    }

    /// The caller has been given so many more items.
    pub(crate) fn give(&mut self, items: usize) {
        self.given += items;
    }

    /// Throws on what the input panicked with, if it did.
    pub(crate) fn rethrow(&mut self) {
        if let Some(panic) = self.panic.take() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<I: Iterator> Drop for Feed<I> {
    fn drop(&mut self) {
        self.progress.abandon();
        if self.taken > self.back {
            crate::handle::Pending::new(self.collector.clone(), self.executor.clone())
                .cancel(Cancel::Ask);
        }
    }
}

/// Pieces that wait to be looked at, in the order in which the caller wants them.
pub(crate) enum Turn {
    /// As they came.
    First(VecDeque<Arc<Piece>>),
    /// As their items were.
    InOrder(InOrder),
}

impl Turn {
    pub(crate) fn push(&mut self, piece: Arc<Piece>) {
        match self {
            Self::First(pieces) => pieces.push_back(piece),
            Self::InOrder(pieces) => pieces.push(piece),
        }
    }

    /// The next piece, if it is there.
    pub(crate) fn pop(&mut self) -> Option<Arc<Piece>> {
        match self {
            Self::First(pieces) => pieces.pop_front(),
            Self::InOrder(pieces) => pieces.pop(),
        }
    }
}

/// Pieces put back into the order of their items.
#[derive(Default)]
pub(crate) struct InOrder {
    next: usize,
    early: BTreeMap<usize, Arc<Piece>>,
}

impl InOrder {
    pub(crate) fn push(&mut self, piece: Arc<Piece>) {
        self.early.insert(piece.first, piece);
    }

    /// The next piece, if it is there.
    pub(crate) fn pop(&mut self) -> Option<Arc<Piece>> {
        let piece = self.early.remove(&self.next)?;
        self.next += piece.count as usize;
        Some(piece)
    }
}
