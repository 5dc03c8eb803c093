//! What became of the items of a chunk, on its way to who waits for it.

use std::mem;
use std::sync::Arc;

use super::bytes::Bytes;
use super::call_id::CallId;
use super::chunk_ext::{ChunkExt, Retry};
use super::item_metrics::ItemMetrics;
use super::options::Timeout;
use super::outcome::Outcome;
use super::traced::Traced;
use crate::broadcast::{Belongings, Needs};
use crate::codec::{self, CodecError, Memory};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::item_run::Run;
use crate::observe::stats::Stats;
use crate::observe::task_metrics::TaskMetrics;
use crate::shm::buffer::Buffer;
use crate::shm::protocol;
use crate::shm::protocol::{Failure, RecordKind, VALUE_HEAD};
use crate::sys;
use crate::worker::function::FunctionId;

/// Where the outcomes of a call go.
pub(crate) trait CompletionSink: Send + Sync {
    /// The name of the call.
    fn call(&self) -> CallId;

    /// Takes the outcomes of some items. Called once for each item, in any order, from any
    /// thread, without a lock of the pool's being held. It neither blocks nor panics. A part of no
    /// items says that a value was emitted.
    fn complete(&self, part: ChunkOutcome);

    /// Nobody waits any more: what has not begun need not be run.
    fn is_abandoned(&self) -> bool;

    /// Decides which of these items are tried again, if they are
    /// [undecided](ChunkOutcome::is_undecided). It asks the user's functions, so it is called
    /// without a lock.
    fn decide(&self, part: ChunkOutcome) -> Decided {
        Decided {
            ended: vec![part],
            again: Vec::new(),
        }
    }

    /// Submits an item once more. Who has a pool of its own does so itself.
    fn resubmit(&self, again: Again) {
        let error = dropped();
        let failed = ChunkOutcome::failed(again.first, 1, error);
        self.complete(ChunkOutcome {
            ext: Some(Box::new(again.ext)),
            ..failed
        });
    }
}

/// What becomes of items that might be tried again.
pub(crate) struct Decided {
    /// Outcomes that stay.
    pub(crate) ended: Vec<ChunkOutcome>,
    /// Items that are tried again.
    pub(crate) again: Vec<Again>,
}

/// An item that is tried again.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) entry: FunctionId,
    /// Its index in its call.
    pub(crate) first: usize,
    pub(crate) items: Bytes,
    pub(crate) timeout: Option<Timeout>,
    pub(crate) attended: bool,
    pub(crate) ext: ChunkExt,
}

/// Gives outcomes to who waits for them, and what is tried again to the call's pool. Says how many
/// items have ended and failed.
pub(crate) fn settle(sink: &dyn CompletionSink, part: ChunkOutcome) -> usize {
    let mut failed = 0;
    let mut end = |mut part: ChunkOutcome| {
        part.close_descriptors();
        failed += part.failures();
        part.tell_counts();
        part.tell_tracer();
        sink.complete(part);
    };
    if !part.is_undecided() {
        end(part);
        return failed;
    }
    let Decided { ended, again } = sink.decide(part);
    ended.into_iter().for_each(end);
    for again in again {
        sink.resubmit(again);
    }
    failed
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

    /// What says that a task has emitted a value, and no more.
    pub(crate) fn of_emission() -> Self {
        Self {
            first: 0,
            count: 0,
            took_ns: 0,
            outcomes: Outcomes::One(None),
            ext: None,
        }
    }

    /// Whether some of the items may be tried again, as far as can be seen without asking anybody.
    #[inline]
    pub(crate) fn is_undecided(&self) -> bool {
        match &self.ext {
            Some(ext) => ext.retry.as_ref().is_some_and(|it| self.may_retry(ext, it)),
            None => false,
        }
    }

    #[cold]
    fn may_retry(&self, ext: &ChunkExt, retry: &Retry) -> bool {
        let may = |error: &TaskError| error.kind().may_be_retried();
        // The caller has what was emitted.
        let has_emitted = ext.emissions.as_ref().is_some_and(|it| it.has_any());
        retry.left > 0
            && !has_emitted
            && match &self.outcomes {
                Outcomes::One(Some(Ok(_))) => retry.judges_values,
                Outcomes::One(Some(Err(error))) | Outcomes::All(error) => may(error),
                Outcomes::One(None) => true,
                Outcomes::Many(many) => retry.judges_values || many.errors.iter().any(may),
            }
    }

    fn trace_to(&self, traced: &Traced) {
        let Some(item_metrics) = self.item_metrics() else {
            return;
        };
        let now = sys::now_ns();
        let mut events = Vec::with_capacity(self.count as usize);
        self.visit(self.first, |index, outcome| {
            let error = outcome.err();
            events.push(item_metrics.event(
                traced.name.clone(),
                index - self.first,
                index,
                error,
                now,
            ));
        });
        traced.tracer.tell_all(events);
    }

    #[cold]
    fn tell_failures(&self, traced: &Traced) {
        let now = sys::now_ns();
        let mut events = Vec::new();
        self.visit(self.first, |index, outcome| {
            if let Err(error) = outcome {
                let unknown = ItemMetrics::default();
                events.push(unknown.event(traced.name.clone(), 0, index, Some(error), now));
            }
        });
        traced.tracer.tell_failures(&events);
    }

    /// Closes what stood in the items. To be called without a lock: it may take its time.
    pub(crate) fn close_descriptors(&mut self) {
        if let Some(ext) = &mut self.ext {
            ext.descriptors.clear();
        }
    }

    /// Counts the items where their executor counts them.
    fn tell_counts(&mut self) {
        if let Some(counts) = self.ext.as_mut().and_then(|it| it.counts.take()) {
            counts.update(|stats| self.count_in(stats));
        }
    }

    /// Reports the items to the tracer, if they are traced.
    pub(crate) fn tell_tracer(&mut self) {
        let item_metrics = self.ext.as_mut().and_then(|it| it.item_metrics.as_mut());
        if let Some(traced) = item_metrics.and_then(|it| it.traced.take()) {
            self.trace_to(&traced);
            if let Some(ext) = &mut self.ext {
                ext.item_metrics.take_if(|it| it.is_for_trace);
            }
        }
        let failures_to = self.ext.as_mut().and_then(|it| it.failures_to.take());
        if let Some(traced) = failures_to
            && self.without_value() > 0
        {
            self.tell_failures(&traced);
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
            Outcomes::Many(many) => many.errors.len(),
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
            Outcomes::Many(many) => {
                for error in &many.errors {
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
        if let Outcomes::Many(many) = &self.outcomes {
            let Records { bytes, errors } = &**many;
            let mut rest = &bytes[..];
            while index < end {
                let Some((outcome, after)) = split_record(rest, |place| error_at(errors, place))
                else {
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
                Outcomes::One(None) | Outcomes::Many(_) => visit(index, Err(rubbish())),
            }
        }
    }

    /// Gives the outcome of each item, with its index, as it travels.
    pub(super) fn into_each(mut self, mut give: impl FnMut(usize, Outcome)) {
        let took_ns = self.took_ns / u64::from(self.count.max(1));
        let losses = self.item_metrics().map_or(0, ItemMetrics::losses);
        let runs = self.take_runs();
        let belongings = self.ext.take().map(|ext| ext.into_belongings());
        let Belongings {
            memory,
            descriptors,
        } = belongings.unwrap_or_default();
        self.visit(self.first, |index, result| {
            let needs = match result {
                Ok(bytes) if !memory.is_empty() => Needs::of_value(bytes, &memory),
                _ => Needs::default(),
            };
            let outcome = Outcome {
                result: result.map(|bytes| {
                    Bytes::from(bytes).with(Belongings {
                        memory: Vec::new(),
                        descriptors: descriptors.clone(),
                    })
                }),
                took_ns,
                run: runs.get(index - self.first).cloned(),
                losses,
                needs,
            };
            give(index, outcome);
        });
    }

    /// The bytes of each value, if all items have one and each has this many bytes.
    pub(crate) fn values_of(&self, size: usize) -> Option<impl ExactSizeIterator<Item = &[u8]>> {
        let Outcomes::Many(many) = &self.outcomes else {
            return None;
        };
        let records = &many.bytes;
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
            Outcomes::Many(many) => Ok(mem::take(&mut many.bytes)),
            Outcomes::One(_) | Outcomes::All(_) => Err(self),
        }
    }

    /// The outcome of a single item.
    pub(crate) fn into_single(self) -> Result<Bytes, TaskError> {
        let with = |bytes: Bytes| match self.ext {
            Some(ext) => bytes.with(ext.into_belongings()),
            None => bytes,
        };
        match self.outcomes {
            Outcomes::One(Some(Ok(bytes))) => Ok(with(bytes)),
            Outcomes::One(outcome) => outcome.unwrap_or_else(|| Err(rubbish())),
            Outcomes::All(error) => Err(error),
            // The rest of its chunk is in other outcomes.
            Outcomes::Many(many) => {
                match split_record(&many.bytes, |place| error_at(&many.errors, place)) {
                    Some((outcome, _)) => Ok(with(Bytes::from(outcome?))),
                    None => Err(rubbish()),
                }
            }
        }
    }
}

/// The error that a record names.
#[cold]
fn error_at(errors: &[TaskError], place: usize) -> TaskError {
    errors.get(place).cloned().unwrap_or_else(rubbish)
}

/// What a record says: the bytes of a value, or an error.
type Record<'a, E> = Result<&'a [u8], E>;

/// The first record as an outcome, and what follows it. `error` is given the place of the error
/// that the record names.
#[inline]
pub(super) fn split_record<E>(
    records: &[u8],
    error: impl FnOnce(usize) -> E,
) -> Option<(Record<'_, E>, &[u8])> {
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
        Some((Err(error(len)), rest))
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
    /// Of several. (A chunk's outcomes are moved often, and those of most chunks that are many are
    /// one.)
    Many(Box<Records>),
    /// The same for all.
    All(TaskError),
}

/// The outcomes of several items.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// For each item a head, and the bytes of a value. The length of an error's head is its place
    /// in `errors`.
    pub(crate) bytes: Buffer,
    pub(crate) errors: Vec<TaskError>,
}

impl Outcomes {
    /// Room for the outcomes of this many items.
    pub(crate) fn with_capacity(count: u32) -> Self {
        if count == 1 {
            Self::One(None)
        } else {
            Self::Many(Box::default())
        }
    }

    /// The same error for each of so many items.
    pub(super) fn with_errors(count: u32, error: TaskError) -> Self {
        let mut bytes = Buffer::default();
        for _ in 0..count {
            push_head(&mut bytes, RecordKind::Failure, 0);
        }
        let errors = vec![error];
        Self::Many(Box::new(Records { bytes, errors }))
    }

    /// Whether an item has failed, as far as can be seen without decoding any.
    #[inline]
    pub(crate) fn has_errors(&self) -> bool {
        match self {
            Self::One(outcome) => !matches!(outcome, Some(Ok(_))),
            Self::Many(many) => !many.errors.is_empty(),
            Self::All(_) => true,
        }
    }

    pub(crate) fn push_value(&mut self, bytes: &[u8]) {
        match self {
            Self::One(outcome) => *outcome = Some(Ok(Bytes::from(bytes))),
            Self::Many(many) => {
                let records = &mut many.bytes;
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
        if let Self::Many(many) = self
            && !has_room(&mut many.bytes, 0)
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
            Self::Many(many) => {
                let records = &mut many.bytes;
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
            Self::Many(many) => {
                push_head(&mut many.bytes, RecordKind::Failure, many.errors.len());
                many.errors.push(error);
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
