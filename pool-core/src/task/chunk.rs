//! Calls as the pools see them: encoded items for one function, and what comes back.

use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::bytes::Bytes;
use super::call_control::CallControl;
use super::call_id::CallId;
use super::chunk_ext::ChunkExt;
use super::item_metrics::ItemMetrics;
use super::options::{ChunkOptions, Timeout};
use super::target::Target;
use super::traced::Traced;
use crate::broadcast::SharedMemory;
use crate::codec::{self, CodecError, Memory};
use crate::error::task_error::{TaskError, TaskErrorKind};
#[cfg(feature = "tracing")]
use crate::observe::call_span::Origin;
use crate::observe::item_run::Run;
use crate::observe::stats::Stats;
use crate::observe::task_metrics::TaskMetrics;
use crate::observe::trace::Tracer;
use crate::panic::catch::with_tasks;
use crate::process::fork;
use crate::shm::buffer::Buffer;
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol;
use crate::shm::protocol::{Failure, RecordKind, VALUE_HEAD};
use crate::sys;
use crate::worker::ChunkRun;
use crate::worker::context;
use crate::worker::function::FunctionId;

/// A chunk of a call: encoded items that travel together, in order, to one worker.
///
/// Every chunk that was submitted gets exactly one outcome for each of its items, in one of three
/// ways: it [runs](Self::run_here) where it is, it is [finished](Self::finish) with an error, or it
/// is [taken apart](Self::into_parts), and its [`Completion`](crate::Completion) takes outcomes.
/// The items of one that is dropped instead fail with an error of kind
/// [`WorkerLost`](TaskErrorKind::WorkerLost) that says so.
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
            retries: self.retries,
            measured: self.item_metrics().is_some(),
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
    /// of its items have failed.
    pub fn run_here(self) -> usize {
        let mut failed = 0;
        self.run_and_tell(|outcome| failed = outcome.failures());
        failed
    }

    /// The same, but `tell` is given the outcome before anybody else is.
    pub(crate) fn run_and_tell(mut self, tell: impl FnOnce(&ChunkOutcome)) {
        let start = sys::now_ns();
        let mut outcomes = Outcomes::with_capacity(self.count);
        let mut ext = self.ext.take();
        let context = ext.as_ref().and_then(|ext| ext.context.clone());
        let control = ext.as_ref().and_then(|ext| ext.control.as_ref());
        let deadline = control.and_then(|control| control.deadline);
        let mut ended = 0;
        let mut item_metrics = ext.as_mut().and_then(|it| it.item_metrics.as_mut());
        let is_measured = item_metrics.is_some();
        let mut offered = Vec::new();
        let mut record = |kind: RecordKind, bytes: &[u8], memory| match kind {
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
                offered.extend(memory);
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
        };
        with_tasks(|| {
            let _context = context.map(|it| context::enter(&it.bytes, false));
            self.entry.function()(&mut ChunkRun::in_memory(
                &self.items.as_slice(),
                is_measured,
                None,
                deadline,
                &mut record,
            ));
        });
        // The deadline came before these could begin.
        for _ in ended..self.count {
            outcomes.push_error(TaskError::deadline_exceeded(false));
        }
        if !offered.is_empty() {
            ext.get_or_insert_default().offered = offered;
        }
        let mut part = ChunkOutcome {
            ext,
            first: self.first,
            count: self.count,
            took_ns: sys::now_ns().saturating_sub(start),
            outcomes,
        };
        tell(&part);
        part.tell_tracer();
        if let Some(sink) = self.take_sink() {
            sink.complete(part);
        }
    }

    /// Finishes the chunk: every item of it fails with this error.
    pub fn finish(mut self, error: &TaskError) {
        if let Some(sink) = self.take_sink() {
            self.fail(&*sink, error.clone());
        }
    }

    fn fail(&mut self, sink: &dyn CompletionSink, error: TaskError) {
        let ext = self.ext.take();
        let failed = ChunkOutcome::failed(self.first, self.count, error);
        let mut part = ChunkOutcome { ext, ..failed };
        part.tell_tracer();
        sink.complete(part);
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
            self.fail(&*sink, dropped());
        }
    }

    /// The items have handles that mean this memory.
    pub(crate) fn attach(&mut self, memory: Vec<Arc<SharedMemory>>) {
        if !memory.is_empty() {
            self.ext.get_or_insert_default().attachments.extend(memory);
        }
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

    /// Whether it may not wait until a few are handed out together: the supervisor has to know of
    /// its deadline, it is urgent, or it is for a worker that may have nothing to do.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        let ext = self.ext.as_ref();
        ext.is_some_and(|ext| ext.control.is_some() || ext.target.is_some())
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
        } else if self.deadline().is_some() && self.is_overdue(sys::now_ns()) {
            Some(TaskError::deadline_exceeded(false))
        } else {
            None
        }
    }

    /// Whether the items have handles of memory.
    pub(crate) fn has_attachments(&self) -> bool {
        let ext = self.ext.as_ref();
        ext.is_some_and(|ext| !ext.attachments.is_empty())
    }

    /// Where the memory is put that comes with results.
    pub(crate) fn offered_mut(&mut self) -> &mut Vec<Arc<SharedMemory>> {
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

    /// Lets the items be reported to this tracer as they get their outcomes, unless they are
    /// reported to one. They are measured for that.
    pub fn trace(&mut self, tracer: &Tracer) {
        self.trace_since(tracer, sys::now_ns());
    }

    /// The same of a chunk that was submitted then.
    pub(crate) fn trace_since(&mut self, tracer: &Tracer, submitted: u64) {
        let ext = self.ext.get_or_insert_default();
        let is_all = ext.item_metrics.is_none();
        if is_all {
            ext.item_metrics = Some(ItemMetrics::since(submitted));
            self.note_encoding(&vec![0; self.count as usize]);
        }
        let entry = (!self.is_initializer).then_some(self.entry);
        if let Some(item_metrics) = self.item_metrics_mut() {
            item_metrics.traced.get_or_insert_with(|| Traced {
                tracer: tracer.clone(),
                entry,
                is_all,
            });
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

/// Where the outcomes of a call go.
pub(crate) trait CompletionSink: Send + Sync {
    /// The name of the call.
    fn call(&self) -> CallId;

    /// Takes the outcomes of some items. Called once for each item, in any order, from any
    /// thread, without a lock of the pool's being held. It neither blocks nor panics.
    fn complete(&self, part: ChunkOutcome);

    /// Nobody waits any more: what has not begun need not be run.
    fn is_abandoned(&self) -> bool;
}

/// A part of a call's outcome: those of neighbouring items of one chunk.
#[derive(Debug)]
pub struct ChunkOutcome {
    pub(crate) first: usize,
    pub(crate) count: u32,
    /// How long the worker took for them, in nanoseconds; zero where that is not known.
    pub(crate) took_ns: u64,
    pub(crate) outcomes: Outcomes,
    /// Those of the chunk.
    pub(crate) ext: Option<Box<ChunkExt>>,
}

impl ChunkOutcome {
    /// All of these items fail with the same error.
    pub(crate) fn failed(first: usize, count: u32, error: TaskError) -> Self {
        Self {
            first,
            count,
            took_ns: 0,
            outcomes: Outcomes::All(error),
            ext: None,
        }
    }

    fn trace_to(&self, traced: &Traced) {
        let Some(item_metrics) = self.item_metrics() else {
            return;
        };
        let function = traced.entry.map_or("initializer", FunctionId::name);
        let now = sys::now_ns();
        let mut events = Vec::with_capacity(self.count as usize);
        self.visit(self.first, |index, outcome| {
            let error = outcome.err().map(|error| error.kind());
            events.push(item_metrics.event(function, index - self.first, index, error, now));
        });
        traced.tracer.tell_all(events);
    }

    /// Reports the items to the tracer, if they are traced.
    pub(crate) fn tell_tracer(&mut self) {
        let item_metrics = self.ext.as_mut().and_then(|it| it.item_metrics.as_mut());
        if let Some(traced) = item_metrics.and_then(|it| it.traced.take()) {
            self.trace_to(&traced);
            if traced.is_all
                && let Some(ext) = &mut self.ext
            {
                ext.item_metrics = None;
            }
        }
    }

    /// What is known of the items, if they were measured.
    pub(crate) fn item_metrics(&self) -> Option<&ItemMetrics> {
        self.ext.as_ref()?.item_metrics.as_ref()
    }

    /// The metrics of the item with this index in its call, which is one of these.
    pub(crate) fn task_metrics(&self, index: usize) -> TaskMetrics {
        let item_metrics = self.item_metrics();
        item_metrics.map_or_else(TaskMetrics::default, |it| {
            it.task_metrics(index - self.first)
        })
    }

    /// Takes what is known of the runs of the first items, if they were measured.
    pub(crate) fn take_runs(&mut self) -> Vec<Run> {
        let item_metrics = self.ext.as_mut().and_then(|it| it.item_metrics.as_mut());
        item_metrics.map(ItemMetrics::take_runs).unwrap_or_default()
    }

    /// How many of the items have failed, as far as can be seen without decoding them.
    pub(crate) fn failures(&self) -> usize {
        self.without_value() + self.errors_returned()
    }

    /// How many of the items have no value.
    #[inline]
    fn without_value(&self) -> usize {
        match &self.outcomes {
            Outcomes::One(Some(Ok(_))) => 0,
            Outcomes::Many { errors, .. } => errors.len(),
            Outcomes::One(_) | Outcomes::All(_) => self.count as usize,
        }
    }

    /// How many of the values are an `Err`, if the call counts these.
    #[inline]
    fn errors_returned(&self) -> usize {
        let is_asked = self.ext.as_ref().is_some_and(|ext| ext.counts_errors);
        if is_asked { self.count_errors() } else { 0 }
    }

    #[cold]
    fn count_errors(&self) -> usize {
        let mut count = 0;
        self.visit(self.first, |_, outcome| {
            count += usize::from(outcome.is_ok_and(codec::is_err));
        });
        count
    }

    /// Counts the items by their outcomes.
    pub(crate) fn count_in(&self, stats: &mut Stats) {
        let returned = self.errors_returned() as u64;
        let without_value = self.without_value() as u64;
        stats.succeeded += u64::from(self.count) - without_value - returned;
        stats.failed += returned;
        stats.errors_returned += returned;
        match &self.outcomes {
            _ if without_value == 0 => {}
            Outcomes::One(Some(Ok(_))) => {}
            Outcomes::One(Some(Err(error))) | Outcomes::All(error) => {
                stats.fail(error.kind(), self.count.into());
            }
            Outcomes::One(None) => stats.fail(TaskErrorKind::Decode, 1),
            Outcomes::Many { errors, .. } => {
                for error in errors.iter() {
                    stats.fail(error.kind(), 1);
                }
            }
        }
    }

    /// Gives the outcome of each item from the index `from` on to `visit`, with its index. Items
    /// that the records do not have (a worker may have written rubbish) fail to decode.
    pub(crate) fn visit(
        &self,
        from: usize,
        mut visit: impl FnMut(usize, Result<&[u8], TaskError>),
    ) {
        let mut index = self.first;
        let end = self.first + self.count as usize;
        if let Outcomes::Many { records, errors } = &self.outcomes {
            let mut rest = &records[..];
            while index < end {
                let Some((outcome, after)) = split_record(rest, errors) else {
                    break;
                };
                rest = after;
                if index >= from {
                    visit(index, outcome);
                }
                index += 1;
            }
        }
        for index in index.max(from)..end {
            match &self.outcomes {
                Outcomes::One(Some(Ok(bytes))) => match bytes.to_slice() {
                    Ok(bytes) => visit(index, Ok(&bytes)),
                    Err(error) => visit(index, Err(no_memory(&error))),
                },
                Outcomes::One(Some(Err(error))) | Outcomes::All(error) => {
                    visit(index, Err(error.clone()));
                }
                Outcomes::One(None) | Outcomes::Many { .. } => visit(index, Err(rubbish())),
            }
        }
    }

    /// The bytes of each value, if all items have one and each has this many bytes.
    pub(crate) fn values_of(&self, size: usize) -> Option<impl ExactSizeIterator<Item = &[u8]>> {
        let Outcomes::Many { records, .. } = &self.outcomes else {
            return None;
        };
        let size = VALUE_HEAD + size;
        let all = records.chunks_exact(size);
        let is_whole = records.len() == self.count as usize * size;
        (is_whole && protocol::are_values(records, size))
            .then(|| all.map(|record| &record[VALUE_HEAD..]))
    }

    /// The records of all items, if each has a value of this many bytes: a head of
    /// [`VALUE_HEAD`] bytes, and the value.
    pub(crate) fn into_records_of(mut self, size: usize) -> Result<Buffer, Self> {
        if self.values_of(size).is_none() {
            return Err(self);
        }
        match &mut self.outcomes {
            Outcomes::Many { records, .. } => Ok(mem::take(records)),
            Outcomes::One(_) | Outcomes::All(_) => Err(self),
        }
    }

    /// The outcome of a single item.
    pub(crate) fn into_single(self) -> Result<Bytes, TaskError> {
        let with = |bytes: Bytes| match self.ext {
            Some(ext) => bytes.with(ext.into_memory()),
            None => bytes,
        };
        match self.outcomes {
            Outcomes::One(Some(Ok(bytes))) => Ok(with(bytes)),
            Outcomes::One(outcome) => outcome.unwrap_or_else(|| Err(rubbish())),
            Outcomes::All(error) => Err(error),
            // The rest of its chunk is in other outcomes.
            Outcomes::Many { records, errors } => match split_record(&records, &errors) {
                Some((outcome, _)) => Ok(with(Bytes::from(outcome?))),
                None => Err(rubbish()),
            },
        }
    }
}

/// What a record says: the bytes of a value, or an error.
type Record<'a> = Result<&'a [u8], TaskError>;

/// The first record as an outcome, and what follows it.
#[inline]
fn split_record<'a>(records: &'a [u8], errors: &[TaskError]) -> Option<(Record<'a>, &'a [u8])> {
    if let Some((word, rest)) = records.split_first_chunk::<4>()
        && let Some(len) = protocol::Head::value_len(u32::from_le_bytes(*word))
    {
        let (bytes, rest) = rest.split_at_checked(len)?;
        return Some((Ok(bytes), rest));
    }
    let (head, rest) = protocol::split_head(records)?;
    let len = usize::try_from(head.len).ok()?;
    if head.kind == RecordKind::Value {
        let (bytes, rest) = rest.split_at_checked(len)?;
        Some((Ok(bytes), rest))
    } else {
        let error = errors.get(len).cloned().unwrap_or_else(rubbish);
        Some((Err(error), rest))
    }
}

/// The error of items whose executor has let go of them.
#[cold]
pub(super) fn dropped() -> TaskError {
    TaskError::new(
        TaskErrorKind::WorkerLost,
        "the pool dropped the task without an outcome",
    )
}

#[cold]
fn rubbish() -> TaskError {
    TaskError::new(TaskErrorKind::Decode, "the worker's answer makes no sense")
}

#[cold]
fn no_memory(error: &CodecError) -> TaskError {
    TaskError::new(
        TaskErrorKind::Decode,
        format!("the result cannot be kept: {error}"),
    )
}

/// A worker's failure record as an error.
pub(crate) fn reported(bytes: &[u8]) -> TaskError {
    match crate::codec::decode::<Failure>(bytes) {
        Ok(failure) => TaskError::reported(failure, None),
        Err(_) => rubbish(),
    }
}

/// What became of items.
#[derive(Debug)]
pub(crate) enum Outcomes {
    /// Of one; there is none yet.
    One(Option<Result<Bytes, TaskError>>),
    /// Of several: for each a head, and the bytes of a value. The length of an error's head is
    /// its place in `errors`.
    Many { records: Buffer, errors: Errors },
    /// The same for all.
    All(TaskError),
}

/// The errors among the outcomes of several items: most have none, and what becomes of an item is
/// moved often.
#[derive(Debug, Default)]
#[allow(clippy::box_collection)]
pub(crate) struct Errors(Option<Box<Vec<TaskError>>>);

impl Errors {
    fn push(&mut self, error: TaskError) {
        self.0.get_or_insert_default().push(error);
    }
}

impl Deref for Errors {
    type Target = [TaskError];

    fn deref(&self) -> &[TaskError] {
        self.0.as_ref().map_or(&[], |errors| errors)
    }
}

impl Outcomes {
    /// Room for the outcomes of this many items.
    pub(crate) fn with_capacity(count: u32) -> Self {
        if count == 1 {
            Self::One(None)
        } else {
            Self::Many {
                records: Buffer::default(),
                errors: Errors::default(),
            }
        }
    }

    pub(crate) fn push_value(&mut self, bytes: &[u8]) {
        match self {
            Self::One(outcome) => *outcome = Some(Ok(Bytes::from(bytes))),
            Self::Many { records, .. } => {
                if !has_room(records, bytes.len()) {
                    return self.push_no_memory(bytes.len());
                }
                push_head(records, RecordKind::Value, bytes.len());
                records.extend_from_slice(bytes);
            }
            Self::All(_) => {}
        }
    }

    /// There is no memory for the bytes of a value.
    #[cold]
    fn push_no_memory(&mut self, bytes: usize) {
        let error = no_memory(&CodecError::no_memory(bytes as u64));
        if let Self::Many { records, .. } = self
            && !has_room(records, 0)
        {
            // Not even to say so.
            *self = Self::All(error);
            return;
        }
        self.push_error(error);
    }

    /// The parts of a large bulk value.
    pub(crate) fn push_bulk(&mut self, prefix: [u8; 8], memory: Memory) {
        match self {
            Self::One(outcome) => *outcome = Some(Ok(Bytes::Bulk(Arc::new((prefix, memory))))),
            Self::Many { records, .. } => {
                let bytes = memory.as_slice();
                if !has_room(records, prefix.len() + bytes.len()) {
                    let bytes = bytes.len();
                    drop(memory);
                    return self.push_no_memory(bytes);
                }
                push_head(records, RecordKind::Value, prefix.len() + bytes.len());
                records.extend_from_slice(&prefix);
                records.extend_from_slice(bytes);
            }
            Self::All(_) => {}
        }
    }

    pub(crate) fn push_error(&mut self, error: TaskError) {
        match self {
            Self::One(outcome) => *outcome = Some(Err(error)),
            Self::Many { records, errors } => {
                push_head(records, RecordKind::Failure, errors.len());
                errors.push(error);
            }
            Self::All(_) => {}
        }
    }
}

/// Whether there is room for a value of this many bytes, with its head, or could be made.
#[inline]
fn has_room(records: &mut Vec<u8>, bytes: usize) -> bool {
    let more = protocol::MAX_HEAD + bytes;
    records.capacity() - records.len() >= more || make_room(records, more)
}

#[cold]
fn make_room(records: &mut Vec<u8>, more: usize) -> bool {
    records.try_reserve(more).is_ok() || records.try_reserve_exact(more).is_ok()
}

fn push_head(records: &mut Vec<u8>, kind: RecordKind, len: usize) {
    let mut head = [0; protocol::MAX_HEAD];
    let size = protocol::Head {
        kind,
        len: len as u64,
    }
    .write(&mut head);
    records.extend_from_slice(&head[..size]);
}
