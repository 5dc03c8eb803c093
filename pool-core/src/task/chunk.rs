//! Calls as the pools see them: encoded items for one function, and what comes back.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::bytes::Bytes;
use super::call_control::CallControl;
use super::call_id::CallId;
use super::chunk_ext::{ChunkExt, call_name};
use super::chunk_outcome::{
    Again, ChunkOutcome, CompletionSink, Outcomes, dropped, reported, settle,
};
use super::emissions::Emissions;
use super::item_counts::ItemCounts;
use super::item_metrics::ItemMetrics;
use super::options::{ChunkOptions, Timeout};
use super::target::Target;
use super::traced::Traced;
use crate::broadcast::{Attachments, Belongings, SharedMemory};
use crate::error::task_error::{TaskError, TaskErrorKind};
#[cfg(feature = "tracing")]
use crate::observe::call_span::Origin;
use crate::observe::tracer::Tracer;
use crate::panic::catch::with_tasks;
use crate::passing::{self, Outgoing};
use crate::process::fork;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol;
use crate::shm::protocol::RecordKind;
use crate::sys;
use crate::worker::context;
use crate::worker::function::FunctionId;
use crate::worker::{ChunkRun, TakeValue};

/// A chunk of a call: encoded items that travel together, in order, to one worker.
///
/// Every chunk that was submitted gets exactly one outcome for each of its items, in one of three
/// ways: it [runs](Self::run_here) where it is, it is [finished](Self::finish) with an error, or it
/// is [taken apart](Self::into_parts), and its [`Completion`](crate::Completion) takes outcomes.
/// The items of one that is dropped instead fail with an error of kind
/// [`WorkerLost`](crate::TaskErrorKind::WorkerLost) that says so.
///
/// All of these wake those who wait, whose wakers may be anybody's code: hold no lock of the pool's
/// meanwhile, not even to drop a chunk.
pub struct Chunk {
    pub(crate) entry: FunctionId,
    /// The index of the first item in the user's call.
    pub(crate) first: usize,
    pub(crate) count: u32,
    /// The items, each with its head; see `protocol`.
    pub(crate) items: Bytes,
    pub(crate) timeout: Option<Timeout>,
    pub(crate) retries: u32,
    /// The submitting thread will drive the pool right away.
    pub(crate) attended: bool,
    /// It is no task of the user's but a worker's initializer.
    pub(crate) is_initializer: bool,
    /// The submitting thread goes on to ask an input for more, which may keep it waiting.
    pub(crate) is_fed: bool,
    /// How many workers have died when this was next, though it had not begun, as they said.
    pub(crate) deaths: u8,
    /// Where it was made: see `fork::depth`.
    fork_depth: u16,
    /// Where the outcomes go. `None`: they went there, or nobody wants any.
    sink: Option<Arc<dyn CompletionSink>>,
    /// What most chunks are without.
    pub(crate) ext: Option<Box<ChunkExt>>,
}

impl Chunk {
    /// Items of a call, as one that asks for nothing else.
    #[inline]
    pub(crate) fn new(
        entry: FunctionId,
        first: usize,
        count: u32,
        items: Bytes,
        sink: Arc<dyn CompletionSink>,
    ) -> Self {
        Self {
            entry,
            first,
            count,
            items,
            timeout: None,
            retries: 0,
            attended: false,
            is_initializer: false,
            is_fed: false,
            deaths: 0,
            fork_depth: fork::depth() as u16,
            sink: Some(sink),
            ext: None,
        }
    }

    /// How many items there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The index of the first item in its call; the others follow it.
    #[must_use]
    pub fn first_index(&self) -> usize {
        self.first
    }

    /// The call that the chunk belongs to.
    #[must_use]
    pub fn call(&self) -> CallId {
        let sink = self.sink.as_ref();
        sink.map_or(CallId::NOBODY, |sink| sink.call())
    }

    /// The function that the items are for.
    #[must_use]
    pub fn function(&self) -> FunctionId {
        self.entry
    }

    /// What the call asks for.
    #[must_use]
    pub fn options(&self) -> ChunkOptions {
        ChunkOptions {
            timeout: self.timeout.map(Timeout::as_duration),
            deadline: self.control().and_then(CallControl::time_left),
            grace: self.grace_ns().map(Duration::from_nanos),
            priority: self.control().map_or(0, |control| control.priority),
            delay: self.delay(),
            retries: self.retries,
            measured: self.item_metrics().is_some(),
            emits: self.emissions().map(|it| it.buffer()),
        }
    }

    /// Whether nobody wants the outcomes any more, since the call was cancelled: what has not begun
    /// is to be [finished](Self::finish) instead of run.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.is_abandoned())
    }

    /// An initializer and its argument as an item. Its outcome is looked at by the engine alone.
    pub(crate) fn initializer(entry: FunctionId, item: Vec<u8>) -> Self {
        Self {
            entry,
            first: 0,
            count: 1,
            items: item.into(),
            timeout: None,
            retries: 0,
            attended: false,
            is_initializer: true,
            is_fed: false,
            deaths: 0,
            fork_depth: 0,
            sink: None,
            ext: None,
        }
    }

    /// Runs the items one after the other in this thread, finishes the chunk, and says how many
    /// of its items have failed. What is tried again counts when it has ended.
    ///
    /// A chunk that is to begin [later](ChunkOptions::delay) is waited for first.
    ///
    /// A task that emits values ([`Call::stream`](crate::Call::stream)) waits here for its reader,
    /// until that reads on, or cancels the call, or drops its handle.
    pub fn run_here(mut self) -> usize {
        sys::sleep_until(self.due());
        let start = sys::now_ns();
        let mut outcomes = Outcomes::with_capacity(self.count);
        let mut ext = self.ext.take();
        let context = ext.as_ref().and_then(|ext| ext.context.clone());
        let emissions = ext.as_ref().and_then(|ext| ext.emissions.clone());
        let control = ext.as_ref().and_then(|ext| ext.control.as_ref());
        let deadline = control.and_then(|control| control.deadline);
        let mut ended = 0;
        let descriptors = ext.as_ref().map_or(&[][..], |ext| &ext.descriptors);
        let lent = passing::lend(descriptors);
        let mut item_metrics = ext.as_mut().and_then(|it| it.item_metrics.as_mut());
        let is_measured = item_metrics.is_some();
        let mut offered = Belongings::default();
        let mut record = |kind: RecordKind, bytes: &[u8], attachments: Attachments| match kind {
            RecordKind::Time => {
                if let (Some(item_metrics), Some(measure)) =
                    (&mut item_metrics, ItemTiming::read(bytes))
                {
                    item_metrics.expect(measure);
                }
            }
            RecordKind::Value | RecordKind::Bulk | RecordKind::SharedResult => {
                ended += 1;
                outcomes.push_value(bytes);
                if !attachments.is_empty() {
                    offered.extend(attachments.into());
                }
                if let Some(item_metrics) = &mut item_metrics {
                    item_metrics.ended(None, bytes.len() as u64);
                }
            }
            RecordKind::Failure => {
                ended += 1;
                outcomes.push_error(reported(bytes));
                if let Some(item_metrics) = &mut item_metrics {
                    item_metrics.ended(None, 0);
                }
            }
            // They do not come this way.
            RecordKind::Emitted | RecordKind::SharedEmitted => {}
        };
        with_tasks(|| {
            let _context = context.map(|it| context::enter(&it.bytes, false));
            let items = self.items.as_slice();
            let run = ChunkRun::in_memory(&items, is_measured, None, deadline, &mut record);
            let values = emissions.as_deref().map(|it| it as &dyn TakeValue);
            self.entry.function()(&mut run.emitting(values));
        });
        // What no task has taken.
        drop(lent);
        // The deadline came before these could begin.
        for _ in ended..self.count {
            outcomes.push_error(TaskError::deadline_exceeded(false));
        }
        if !offered.is_empty() {
            ext.get_or_insert_default().offered = offered;
        }
        self.ext = ext;
        let part = ChunkOutcome {
            ext: self.take_ext(),
            first: self.first,
            count: self.count,
            took_ns: sys::now_ns().saturating_sub(start),
            outcomes,
        };
        self.take_sink().map_or(0, |sink| settle(&*sink, part))
    }

    /// Whether its items may come back when they have failed.
    pub(crate) fn may_be_retried(&self) -> bool {
        self.ext.as_ref().is_some_and(|ext| ext.retry.is_some())
    }

    /// When it may begin, in nanoseconds of the monotonic clock; 0: at once.
    #[inline]
    pub(crate) fn due(&self) -> u64 {
        self.ext.as_ref().map_or(0, |ext| ext.due)
    }

    /// How long it is not to begin.
    fn delay(&self) -> Duration {
        match self.due() {
            0 => Duration::ZERO,
            due => Duration::from_nanos(due.saturating_sub(sys::now_ns())),
        }
    }

    /// What it has that others are without, for the outcomes of its items.
    #[inline]
    pub(crate) fn take_ext(&mut self) -> Option<Box<ChunkExt>> {
        let mut ext = self.ext.take()?;
        if let Some(retry) = &mut ext.retry {
            retry.items = std::mem::take(&mut self.items);
            retry.attended = self.attended;
        }
        Some(ext)
    }

    /// The chunk of an item that is tried again.
    pub(crate) fn again(again: Again, sink: Arc<dyn CompletionSink>) -> Self {
        let mut chunk = Self::new(again.entry, again.first, 1, again.items, sink);
        chunk.timeout = again.timeout;
        chunk.attended = again.attended;
        chunk.ext = Some(Box::new(again.ext));
        chunk
    }

    /// Finishes the chunk: every item of it fails with this error.
    pub fn finish(mut self, error: &TaskError) {
        if let Some(sink) = self.take_sink() {
            self.fail(&*sink, error.clone());
        }
    }

    fn fail(&mut self, sink: &dyn CompletionSink, error: TaskError) {
        let ext = self.take_ext();
        let failed = ChunkOutcome::failed(self.first, self.count, error);
        settle(sink, ChunkOutcome { ext, ..failed });
    }

    /// Where the outcomes go: from now on, whoever takes it owes them. `None`: there are none.
    #[inline]
    pub(crate) fn take_sink(&mut self) -> Option<Arc<dyn CompletionSink>> {
        self.sink.take().filter(|_| self.count > 0)
    }

    /// An executor has let go of it.
    #[cold]
    fn fail_dropped(&mut self) {
        let is_copy = self.fork_depth != fork::depth() as u16;
        if let Some(sink) = self.take_sink()
            && !is_copy
        {
            if let Some(ext) = &mut self.ext {
                // It would do so again.
                ext.retry = None;
            }
            self.fail(&*sink, dropped());
        }
    }

    /// The items have handles that mean these, which are all that there is.
    pub(crate) fn attach(&mut self, mut attachments: Attachments) {
        self.attach_from(&mut attachments);
    }

    /// The items have handles that mean some of these: the memory is shared, and of the descriptors
    /// those are taken that stand in the items.
    pub(crate) fn attach_from(&mut self, attachments: &mut Attachments) {
        if !attachments.is_empty() {
            self.attach_some_of(attachments);
        }
    }

    #[cold]
    fn attach_some_of(&mut self, attachments: &mut Attachments) {
        let found = attachments.take_descriptors(|descriptors| {
            let all = self.items.as_slice();
            passing::of_items(protocol::items(&all), descriptors)
        });
        let ext = self.ext.get_or_insert_default();
        ext.attachments.extend_from_slice(attachments.memory());
        ext.descriptors.extend(found);
    }

    /// The descriptors that stand in the items, each with the place of its item, in the order of
    /// these.
    pub(crate) fn descriptors(&self) -> &[(u32, Arc<Outgoing>)] {
        self.ext.as_ref().map_or(&[], |ext| &ext.descriptors)
    }

    /// The memory that handles in the items mean.
    pub(crate) fn attachments(&self) -> &[Arc<SharedMemory>] {
        self.ext.as_ref().map_or(&[], |ext| &ext.attachments)
    }

    /// Its items are measured, and it is about to be submitted.
    pub(crate) fn measure(&mut self) {
        self.ext.get_or_insert_default().item_metrics = Some(ItemMetrics::measured());
    }

    /// It is to run in this worker.
    pub(crate) fn aim(&mut self, target: Target) {
        self.ext.get_or_insert_default().target = Some(target);
    }

    /// The worker that is to run it, if that is not any.
    #[inline]
    pub(crate) fn target_mut(&mut self) -> Option<&mut Target> {
        self.ext.as_mut()?.target.as_mut()
    }

    /// The number of the pool's position whose worker is to run it.
    #[inline]
    pub(crate) fn position(&self) -> Option<usize> {
        match self.ext.as_ref()?.target {
            Some(Target::Position(position)) => Some(position),
            _ => None,
        }
    }

    /// What the function gets with each item, encoded; empty if it gets nothing.
    #[inline]
    pub(crate) fn context(&self) -> &[u8] {
        let context = self.ext.as_ref().and_then(|ext| ext.context.as_ref());
        context.map_or(&[], |context| &context.bytes)
    }

    /// Where the outcomes go.
    pub(crate) fn sink(&self) -> Option<&Arc<dyn CompletionSink>> {
        self.sink.as_ref()
    }

    /// Its one item emits values, which go there.
    pub(crate) fn emit_to(&mut self, emissions: Arc<Emissions>) {
        emissions.keep(self.attachments());
        self.ext.get_or_insert_default().emissions = Some(emissions);
    }

    /// Where the values go that its item emits, if it is one that does so.
    #[inline]
    pub(crate) fn emissions(&self) -> Option<&Arc<Emissions>> {
        self.ext.as_ref()?.emissions.as_ref()
    }

    /// Whether its item has emitted a value: then it is not to run again.
    pub(crate) fn has_emitted(&self) -> bool {
        self.emissions()
            .is_some_and(|emissions| emissions.has_any())
    }

    /// Whether it may not wait until a few are handed out together: the supervisor has to know of
    /// its deadline, it is urgent, or it is for a worker that may have nothing to do.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        let ext = self.ext.as_ref();
        ext.is_some_and(|ext| {
            let is_special = |it: &Arc<CallControl>| it.is_special();
            ext.target.is_some() || ext.due != 0 || ext.control.as_ref().is_some_and(is_special)
        })
    }

    /// What its call is called.
    pub(crate) fn call_name(&self) -> Cow<'static, str> {
        call_name(self.entry, self.ext.as_deref())
    }

    /// When and how the call ends, if it says so.
    #[inline]
    pub(crate) fn control(&self) -> Option<&CallControl> {
        self.ext.as_ref()?.control.as_deref()
    }

    /// When the call ends, in nanoseconds of the monotonic clock.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.control()?.deadline
    }

    /// Whether the call's deadline has passed by this time.
    pub(crate) fn is_overdue(&self, now: u64) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// How long an item has to end after it was asked to, in nanoseconds.
    pub(crate) fn grace_ns(&self) -> Option<u64> {
        self.control()?.grace
    }

    /// Why it is not to begin any more. `None`: it is.
    #[inline]
    pub(crate) fn refusal(&self) -> Option<TaskError> {
        if self.is_abandoned() {
            Some(TaskError::cancelled())
        } else if self.ext.is_some() {
            self.special_refusal()
        } else {
            None
        }
    }

    fn special_refusal(&self) -> Option<TaskError> {
        if self.deadline().is_some() && self.is_overdue(sys::now_ns()) {
            Some(TaskError::deadline_exceeded(false))
        } else if self.has_emitted() {
            // Its worker has lied about it.
            Some(TaskError::new(
                TaskErrorKind::WorkerLost,
                "the worker has let go of a task that had emitted values",
            ))
        } else {
            None
        }
    }

    /// Whether the items have handles of memory, or descriptors.
    #[inline]
    pub(crate) fn has_attachments(&self) -> bool {
        let ext = self.ext.as_ref();
        ext.is_some_and(|ext| !ext.attachments.is_empty() || !ext.descriptors.is_empty())
    }

    /// Where what comes with results is put.
    pub(crate) fn offered_mut(&mut self) -> &mut Belongings {
        &mut self.ext.get_or_insert_default().offered
    }

    /// The span that the call was made in, if its items' events belong to it.
    #[cfg(feature = "tracing")]
    #[inline]
    pub(crate) fn origin(&self) -> Option<&Arc<Origin>> {
        self.ext.as_ref()?.origin.as_ref()
    }

    /// What is known of the items, if they are measured.
    pub(crate) fn item_metrics(&self) -> Option<&ItemMetrics> {
        self.ext.as_ref()?.item_metrics.as_ref()
    }

    pub(crate) fn item_metrics_mut(&mut self) -> Option<&mut ItemMetrics> {
        self.ext.as_mut()?.item_metrics.as_mut()
    }

    /// Notes how long each item took to encode, in nanoseconds, if they are measured.
    pub(crate) fn note_encoding(&mut self, times: &[u64]) {
        let Some(item_metrics) = self.ext.as_mut().and_then(|it| it.item_metrics.as_mut()) else {
            return;
        };
        if let [time] = times {
            // It may be lent, and not in one piece.
            let head = self.items.parts()[0].first_chunk().copied();
            let head = protocol::Head::size(head.unwrap_or_default());
            item_metrics.encoded(self.items.len().saturating_sub(head) as u64, *time);
            return;
        }
        let items = self.items.as_slice();
        let mut rest = &items[..];
        for time in times {
            let (item, after) = protocol::split_item(rest).unwrap_or_default();
            item_metrics.encoded(item.len() as u64, *time);
            rest = after;
        }
    }

    /// Lets the items be reported to this tracer as they get their outcomes, if anybody wants to
    /// know of items, and unless they are reported to one. They are measured for that.
    pub fn trace(&mut self, tracer: &Tracer) {
        self.trace_items(tracer);
        if tracer.wants_failures() {
            self.trace_failures(tracer);
        }
    }

    /// The same for an executor that says itself which items have failed.
    #[inline]
    pub(crate) fn trace_items(&mut self, tracer: &Tracer) {
        if tracer.wants_items() {
            self.trace_since(tracer, sys::now_ns());
        }
    }

    /// Lets items that fail be reported to those who do not want to know of each.
    #[cold]
    pub(crate) fn trace_failures(&mut self, tracer: &Tracer) {
        let (tracer, name) = (tracer.clone(), self.call_name());
        let ext = self.ext.get_or_insert_default();
        ext.failures_to = Some(Traced { tracer, name });
    }

    /// The same of a chunk that was submitted then; 0: that is not known.
    #[cold]
    pub(crate) fn trace_since(&mut self, tracer: &Tracer, submitted: u64) {
        let ext = self.ext.get_or_insert_default();
        if ext.item_metrics.is_none() {
            let item_metrics = ext.item_metrics.insert(ItemMetrics::since(submitted));
            item_metrics.is_for_trace = true;
            self.note_encoding(&vec![0; self.count as usize]);
        }
        let name = match self.is_initializer {
            true => "initializer".into(),
            false => self.call_name(),
        };
        if let Some(item_metrics) = self.item_metrics_mut() {
            item_metrics.traced.get_or_insert_with(|| Traced {
                tracer: tracer.clone(),
                name,
            });
        }
    }

    /// Counts the items as submitted, and each of them once more when it has ended; not those that
    /// are counted already, since their chunk was [resubmitted](crate::Executor::resubmit) or has
    /// come from another executor.
    pub fn count_in(&mut self, counts: &ItemCounts) {
        let items = u64::from(self.count);
        let ext = self.ext.get_or_insert_default();
        if ext.counts.is_none() {
            counts.update(|stats| stats.submitted += items);
            ext.counts = Some(counts.clone());
        }
    }

    /// The first `at` items, and the others, as chunks of their own: for different workers.
    ///
    /// # Panics
    /// When there are not more items than that, or it is none.
    #[must_use]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let count = self.count();
        assert!(
            0 < at && at < count,
            "{count} items cannot be split at {at}"
        );
        self.split(at as u32)
    }

    /// The items before and from `at` on, as chunks of their own.
    pub(crate) fn split(mut self, at: u32) -> (Self, Self) {
        assert!(at <= self.count, "a chunk is split inside");
        let nothing = || Bytes::from(&[][..]);
        let (before, after) = if at == 0 {
            (nothing(), self.items.clone())
        } else if at == self.count {
            (self.items.clone(), nothing())
        } else {
            let all = self.items.as_slice();
            let (before, after) = protocol::split_items(&all, at as usize);
            (Bytes::from(before), Bytes::from(after))
        };
        let ext = self.ext.as_mut();
        let tail = Self {
            ext: ext.map(|ext| Box::new(ext.split_off(at))),
            first: self.first + at as usize,
            count: self.count - at,
            items: after,
            sink: self.sink.clone(),
            entry: self.entry,
            timeout: self.timeout,
            retries: self.retries,
            attended: self.attended,
            is_initializer: self.is_initializer,
            is_fed: self.is_fed,
            deaths: self.deaths,
            fork_depth: self.fork_depth,
        };
        self.count = at;
        self.items = before;
        (self, tail)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.sink.is_some() {
            self.fail_dropped();
        }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("call", &self.call())
            .field("function", &self.entry)
            .field("first", &self.first)
            .field("count", &self.count)
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}
