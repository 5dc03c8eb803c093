//! From an iterator of arguments to chunks in a pool, and back to values: the loop that `map`,
//! `imap` and `imap_unordered` share.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
#[cfg(feature = "stream")]
use std::task::{Context, Poll};
#[cfg(feature = "stream")]
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use super::call_site::CallSite;
use super::flow::Flow;
use super::open_chunk::{Filler, Input, OpenChunk};
use crate::api::handle::{Collector, Pending};
use crate::api::progress::Progress;
use crate::error::task_error::TaskError;
use crate::sys;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::encode::{Limit, Stop};
use crate::task::executor::{Cancel, Executor};
use crate::task::grain::Grain;
use crate::task::open_input::OpenInput;

/// How long an executor's thread takes and encodes items in one go. What else the executor runs
/// waits meanwhile; what a turn costs beside it is less than a microsecond.
#[cfg(feature = "stream")]
const FILL_FOR: Duration = Duration::from_micros(100);

/// For so long items are taken though results are there, in nanoseconds: the workers should have
/// something to do while those are read.
const HURRY_NS: u64 = 50_000;

/// What gives a lazy map its outcomes.
pub trait Source {
    /// The next outcomes in whatever order they come, at least one; none when all are done.
    /// Waits for them, driving the pool.
    fn next_parts(&mut self) -> Vec<Arc<ChunkOutcome>>;

    /// The same as a future does it: without waiting, and, if it is asked once in each poll to
    /// `fill`, without keeping the thread for long.
    #[cfg(feature = "stream")]
    fn poll_parts(&mut self, context: &mut Context<'_>, fill: bool)
    -> Poll<Vec<Arc<ChunkOutcome>>>;

    /// From now on `poll_pieces` is asked, and nobody drives the pool.
    #[cfg(feature = "stream")]
    fn stop_driving(&mut self);

    /// How many items have not been given to the caller, as [`Iterator::size_hint`] says it.
    fn remaining(&self) -> (usize, Option<usize>);

    /// The caller has been given this many more items.
    fn give(&mut self, items: usize);

    /// Whether what is taken depends on how many were given, so that `give` must not wait.
    fn counts_given(&self) -> bool;

    /// From now on dropping it ends what is under way in this way.
    fn end_by(&mut self, how: Cancel);

    /// Throws on what the input panicked with, if it did.
    fn rethrow(&mut self);

    /// Why there are no more outcomes, though there are more items.
    fn error(&mut self) -> Option<TaskError> {
        None
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn next_parts(&mut self) -> Vec<Arc<ChunkOutcome>> {
        (**self).next_parts()
    }

    #[cfg(feature = "stream")]
    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        fill: bool,
    ) -> Poll<Vec<Arc<ChunkOutcome>>> {
        (**self).poll_parts(context, fill)
    }

    #[cfg(feature = "stream")]
    fn stop_driving(&mut self) {
        (**self).stop_driving();
    }

    fn remaining(&self) -> (usize, Option<usize>) {
        (**self).remaining()
    }

    fn give(&mut self, items: usize) {
        (**self).give(items);
    }

    fn counts_given(&self) -> bool {
        (**self).counts_given()
    }

    fn end_by(&mut self, how: Cancel) {
        (**self).end_by(how);
    }

    fn rethrow(&mut self) {
        (**self).rethrow();
    }

    fn error(&mut self) -> Option<TaskError> {
        (**self).error()
    }
}

/// How many more items an input has, if it says.
fn left<I: Iterator>(input: &Input<I>) -> Option<usize> {
    match input.size_hint() {
        (low, Some(high)) if low == high => Some(low),
        _ => None,
    }
}

/// An input, and what makes chunks of it.
pub(crate) struct Pusher<I: Iterator> {
    executor: Weak<dyn Executor>,
    input: Input<I>,
    filler: Filler,
    collector: Arc<Collector>,
    has_begun: bool,
    /// The executor takes items out of the open chunk.
    is_watched: bool,
    rush: Rush,
}

/// Items that were handed over early, since a worker had nothing to do.
///
/// The first ones go one by one. But where the input gives more at once, and workers have done
/// with each before the next is there, they are to get ever more at a time: a chunk costs much more
/// than a small item. The executor then looks after a while whether the input has stopped.
#[derive(Default)]
struct Rush {
    /// How often in a row, one soon after the other.
    times: usize,
    /// When the last one was, in nanoseconds.
    last_ns: u64,
    /// The most items in the next chunk, where it is not handed over as early as that.
    most: Option<usize>,
}

/// What follows after less than this follows at once, in nanoseconds.
const AT_ONCE_NS: u64 = 20_000;

impl Rush {
    /// An item was handed over early.
    fn note(&mut self) {
        let now = sys::now_ns();
        let is_soon = now.saturating_sub(self.last_ns) < AT_ONCE_NS;
        self.times = if is_soon { self.times + 1 } else { 1 };
        self.last_ns = now;
    }

    /// How many items the next chunk may have, where it is not to be a single one.
    fn most(&self, workers: usize) -> Option<usize> {
        let beyond = self.times.checked_sub(workers + 1)?;
        Some(2 << beyond.min(15))
    }
}

/// How an input has ended.
pub(crate) enum End {
    Exhausted,
    /// It has panicked with this.
    Panicked(Box<dyn Any + Send>),
    /// Nobody wants more of it.
    Unwanted,
}

impl<A, I> Pusher<I>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    pub(crate) fn new(
        executor: &Arc<dyn Executor>,
        call: CallSite,
        input: I,
        collector: Arc<Collector>,
    ) -> Self {
        let open = Arc::new(OpenChunk::new(call, collector.clone()));
        Self {
            executor: Arc::downgrade(executor),
            input: Input::new(input),
            filler: Filler::new(open),
            collector,
            has_begun: false,
            is_watched: false,
            rush: Rush::default(),
        }
    }

    pub(crate) fn open(&self) -> &Arc<OpenChunk> {
        self.filler.open()
    }

    pub(crate) fn left(&self) -> Option<usize> {
        left(&self.input)
    }

    pub(crate) fn size_hint(&self) -> (usize, Option<usize>) {
        self.input.size_hint()
    }

    /// How many items were taken.
    pub(crate) fn taken(&self) -> usize {
        self.filler.taken()
    }

    /// The input may keep this thread waiting from now on.
    pub(crate) fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        if let Some(executor) = self.executor.upgrade() {
            self.is_watched = executor.watch_input(self.filler.open().clone());
        }
        if !self.is_watched {
            self.open().interrupt();
        }
    }

    /// It does not any more.
    pub(crate) fn finish(&mut self) {
        if !std::mem::take(&mut self.has_begun) {
            return;
        }
        if let Some(executor) = self.executor.upgrade() {
            executor.unwatch_input(&**self.filler.open());
        }
    }

    /// Takes items for one chunk, and hands them to the pool, sooner if a worker has nothing to do.
    pub(crate) fn push(&mut self, limit: Limit) -> Option<End> {
        let end = self.taken().saturating_add(limit.items);
        self.open().fill_here();
        loop {
            let left = end - self.taken();
            let items = self.rush.most.map_or(left, |most| most.min(left));
            let stop = self.filler.fill(&mut self.input, Limit { items, ..limit });
            let Some(executor) = self.executor.upgrade() else {
                return Some(End::Unwanted);
            };
            let is_rushed = self.rush.most.take().is_some() && matches!(stop, Stop::Full);
            let is_early = is_rushed || matches!(stop, Stop::Wanted);
            if is_early {
                // Before it is asked whether it still is wanted.
                self.open().heed();
            }
            if let Some(chunk) = self.filler.close() {
                executor.submit(chunk);
            }
            match stop {
                Stop::Full | Stop::Wanted if is_early => {
                    if self.collector.is_abandoned() {
                        return Some(End::Unwanted);
                    }
                    self.rush.note();
                    let most = self.rush.most(executor.processes());
                    let most = most.filter(|_| self.is_watched);
                    if !executor.has_idle_worker(most.is_some()) {
                        self.rush.times = 0;
                    } else if most.is_some() {
                        self.rush.most = most;
                    } else {
                        self.open().interrupt();
                    }
                    let is_late = || limit.until.is_some_and(|until| until <= sys::now());
                    if self.taken() == end || is_late() {
                        return None;
                    }
                }
                Stop::Full | Stop::Wanted => return None,
                Stop::Exhausted => return Some(End::Exhausted),
                Stop::Failed(error) => {
                    let index = self.filler.skip();
                    self.collector.expect(1);
                    self.collector
                        .complete(ChunkOutcome::failed(index, 1, error));
                    return None;
                }
                Stop::Panicked(panic) => return Some(End::Panicked(panic)),
            }
        }
    }
}

/// Feeds a pool from an iterator in the thread that wants the results.
///
/// Dropping it cancels what is under way.
pub struct InputFeeder<I: Iterator> {
    executor: Arc<dyn Executor>,
    pusher: Pusher<I>,
    /// What the input panicked with; to be thrown on when all items before are done.
    panic: Option<Box<dyn Any + Send>>,
    flow: Flow,
    collector: Arc<Collector>,
    has_begun: bool,
    is_exhausted: bool,
    /// Items are taken though results are there: the input does not wait, or nobody waits for
    /// those.
    is_eager: bool,
    progress: Progress,
    /// Those who observe the pool can see how far it is.
    is_announced: bool,
    /// How what is under way ends with it.
    end: Cancel,
}

impl<A, I> InputFeeder<I>
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
        let collector = Arc::new(Collector::default());
        let runs_here = executor.runs_in_caller();
        let mut it = Self {
            flow: Flow::new(&call.options, &*executor),
            pusher: Pusher::new(&executor, call, input, collector.clone()),
            executor,
            panic: None,
            collector,
            has_begun: false,
            is_exhausted: false,
            is_eager: false,
            progress,
            is_announced: false,
            end: Cancel::Cooperative,
        };
        if runs_here {
            // It never waits for what others do.
            it.announce();
        }
        it
    }

    /// The same, from where another thread has not begun.
    pub(crate) fn resume(
        executor: Arc<dyn Executor>,
        pusher: Pusher<I>,
        flow: Flow,
        progress: Progress,
    ) -> Self {
        Self {
            flow,
            collector: pusher.collector.clone(),
            pusher,
            executor,
            panic: None,
            has_begun: false,
            is_exhausted: false,
            is_eager: false,
            progress,
            is_announced: true,
            end: Cancel::Cooperative,
        }
    }

    /// Takes items though results are there.
    pub(crate) fn eager(mut self, is_eager: bool) -> Self {
        self.is_eager = is_eager;
        self
    }

    /// A result is given before another item is taken.
    pub(crate) fn one_by_one(mut self) -> Self {
        self.flow.one_by_one();
        self
    }

    /// Takes as many items from the input as there is room for, and hands them to the pool;
    /// `false`: there was no time for all.
    fn fill(&mut self, until: Option<Instant>) -> bool {
        if self.is_exhausted {
            return true;
        }
        if !self.has_begun {
            self.has_begun = true;
            self.progress.begin(self.pusher.size_hint());
            self.pusher.begin();
        }
        let mut since = None;
        while let Some(limit) = self.flow.next(self.pusher.left()) {
            let now = sys::now_ns();
            if now - *since.get_or_insert(now) > HURRY_NS && self.collector.poll_any(None) {
                // Results are there, and what is taken here takes long.
                break;
            }
            let end = self.pusher.push(Limit { until, ..limit });
            self.flow.taken = self.pusher.taken();
            if let Some(end) = end {
                self.is_exhausted = true;
                self.pusher.finish();
                match end {
                    End::Panicked(panic) => self.panic = Some(panic),
                    End::Exhausted | End::Unwanted => {
                        self.progress.end_known(self.flow.taken);
                        self.collector.end_known(self.flow.taken);
                    }
                }
                return true;
            }
            if until.is_some_and(|until| until <= sys::now()) {
                return false;
            }
        }
        true
    }

    /// Called when there is nothing to do but to wait: the workers have something to do meanwhile.
    fn announce(&mut self) {
        if std::mem::replace(&mut self.is_announced, true) {
            return;
        }
        let (low, high) = self.pusher.size_hint();
        let taken = self.flow.taken;
        let size = (
            low.saturating_add(taken),
            high.and_then(|high| high.checked_add(taken)),
        );
        let name = self.pusher.open().name();
        self.collector.announce(&*self.executor, name, size);
    }

    /// The outcomes that are there, none of them when all are done; `None`: they must be waited
    /// for.
    fn take(&mut self) -> Option<Vec<Arc<ChunkOutcome>>> {
        let parts = self.collector.take_arrived();
        self.flow.observe(&parts, Grain::of(&*self.executor));
        show(&self.progress, &parts);
        let is_over = self.is_exhausted && self.flow.taken == self.flow.back;
        if is_over && self.panic.is_none() {
            self.progress.finish();
        }
        (is_over || !parts.is_empty()).then_some(parts)
    }
}

/// Shows what has come back.
pub(crate) fn show(progress: &Progress, parts: &[Arc<ChunkOutcome>]) {
    if progress.is_shown() {
        for part in parts {
            progress.add(part.count.into(), part.failures() as u64);
        }
    }
}

impl<A, I> Source for InputFeeder<I>
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    fn next_parts(&mut self) -> Vec<Arc<ChunkOutcome>> {
        if self.executor.is_foreign() {
            return Vec::new();
        }
        loop {
            self.fill(None);
            if let Some(parts) = self.take() {
                if self.is_eager {
                    // The workers go on while these are read.
                    self.fill(None);
                }
                return parts;
            }
            if self.flow.taken > self.flow.back {
                self.announce();
                let collector = &self.collector;
                self.executor
                    .wait_until(&mut |waker| collector.poll_any(waker), None);
            }
            // Otherwise there was no room, for the caller holds all that was taken: it asks for
            // more only when it has given that away.
        }
    }

    #[cfg(feature = "stream")]
    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        fill: bool,
    ) -> Poll<Vec<Arc<ChunkOutcome>>> {
        if self.executor.is_foreign() {
            return Poll::Ready(Vec::new());
        }
        let is_full = fill && self.fill(Some(sys::now() + FILL_FOR));
        loop {
            if let Some(parts) = self.take() {
                return Poll::Ready(parts);
            }
            if !is_full {
                // It is the others' turn.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.announce();
            if self.flow.taken > self.flow.back && !self.collector.poll_any(Some(context.waker())) {
                return Poll::Pending;
            }
        }
    }

    #[cfg(feature = "stream")]
    fn stop_driving(&mut self) {
        self.pusher.open().leave_unattended();
        if self.flow.taken > self.flow.back {
            self.executor.detach();
        }
    }

    fn remaining(&self) -> (usize, Option<usize>) {
        let taken = self.flow.taken - self.flow.given;
        if self.is_exhausted {
            return (taken, Some(taken));
        }
        let (low, high) = self.pusher.size_hint();
        (
            low.saturating_add(taken),
            high.and_then(|high| high.checked_add(taken)),
        )
    }

    fn give(&mut self, items: usize) {
        self.flow.given += items;
    }

    fn counts_given(&self) -> bool {
        self.flow.buffer.is_some()
    }

    fn end_by(&mut self, how: Cancel) {
        self.end = how;
    }

    fn error(&mut self) -> Option<TaskError> {
        self.executor.is_foreign().then(TaskError::of_fork)
    }

    fn rethrow(&mut self) {
        if let Some(panic) = self.panic.take() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl<I: Iterator> Drop for InputFeeder<I> {
    fn drop(&mut self) {
        self.progress.abandon();
        if self.is_announced {
            self.collector.leave(&*self.executor);
        }
        if self.has_begun && !self.is_exhausted {
            self.executor.unwatch_input(&**self.pusher.filler.open());
        }
        if self.pusher.filler.taken() > self.flow.back {
            Pending::new(self.collector.clone(), self.executor.clone()).cancel(self.end);
        }
    }
}

/// Pieces that wait to be looked at, in the order in which the caller wants them.
pub(crate) enum ResultOrder {
    /// As they came.
    First(VecDeque<Arc<ChunkOutcome>>),
    /// As their items were.
    InOrder(InOrder),
}

impl ResultOrder {
    pub(crate) fn push(&mut self, part: Arc<ChunkOutcome>) {
        match self {
            Self::First(parts) => parts.push_back(part),
            Self::InOrder(parts) => parts.push(part),
        }
    }

    /// The next outcome, if it is there.
    pub(crate) fn pop(&mut self) -> Option<Arc<ChunkOutcome>> {
        match self {
            Self::First(parts) => parts.pop_front(),
            Self::InOrder(parts) => parts.pop(),
        }
    }
}

/// Pieces put back into the order of their items.
#[derive(Default)]
pub(crate) struct InOrder {
    next: usize,
    early: BTreeMap<usize, Arc<ChunkOutcome>>,
}

impl InOrder {
    pub(crate) fn push(&mut self, part: Arc<ChunkOutcome>) {
        self.early.insert(part.first, part);
    }

    /// The next outcome, if it is there.
    pub(crate) fn pop(&mut self) -> Option<Arc<ChunkOutcome>> {
        let part = self.early.remove(&self.next)?;
        self.next += part.count as usize;
        Some(part)
    }
}
