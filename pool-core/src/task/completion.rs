//! Delivering the outcomes of a chunk that ran elsewhere.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::bytes::Bytes;
use super::call_id::CallId;
use super::chunk::Chunk;
use super::chunk_ext::ChunkExt;
use super::chunk_outcome::{ChunkOutcome, CompletionSink, Outcomes, dropped, settle};
use super::emissions::Emissions;
use super::encoded_chunk::EncodedChunk;
use super::outcome::Outcome;
use super::outcome_batch::OutcomeBatch;
use crate::broadcast::{Belongings, ContentId, Needs};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::item_run::Run;
use crate::passing;
use crate::process::fork;
use crate::shm::item_timing::ItemTiming;
use crate::sys;

impl Chunk {
    /// Takes the chunk apart: what is to be sent, and where the outcomes are delivered.
    #[must_use]
    pub fn into_parts(mut self) -> (EncodedChunk, Completion) {
        let sink = self.take_sink();
        let options = self.options();
        let items = self.items.clone();
        let mut ext = self.take_ext();
        let descriptors = ext.as_mut().map(|it| {
            let all = it.descriptors.clone();
            if it.retry.is_none() {
                it.descriptors.clear();
            }
            all
        });
        let needs = match &ext {
            // Those of the whole call, perhaps.
            Some(ext) if !ext.attachments.is_empty() => {
                let context = ext.context.as_ref();
                let context = context.map_or(&[][..], |context| &context.bytes);
                Needs::of_values([context, &items.as_slice()], &ext.attachments)
            }
            _ => Needs::default(),
        };
        let context = ext.as_ref().and_then(|it| it.context.as_ref());
        let control = ext.as_ref().and_then(|it| it.control.as_ref());
        let name = control.and_then(|control| control.name.as_deref());
        let encoded = EncodedChunk::new(
            self.entry,
            self.first..self.first + self.count as usize,
            context.map_or(&[][..], |it| &it.bytes).into(),
            items,
            options,
            needs.clone(),
            descriptors.unwrap_or_default(),
        )
        .named(name);
        let completion = Completion {
            first: self.first,
            count: self.count,
            fork_depth: fork::depth(),
            sink,
            ext,
            needs,
            pending: Mutex::new(Pending::new(self.count as usize)),
        };
        (encoded, completion)
    }
}

/// Where the outcomes of a chunk's items are delivered: each once, in any order, in parts, from any
/// thread.
///
/// Every item gets exactly one outcome. A second one is refused, and what has none when this is
/// dropped, fails with an error of kind [`WorkerLost`](TaskErrorKind::WorkerLost) that says so.
///
/// To deliver is to wake those who wait, whose wakers may be anybody's code: hold no lock of the
/// pool's meanwhile. It neither waits nor panics.
pub struct Completion {
    first: usize,
    count: u32,
    /// In a fork of this process, nobody waits.
    fork_depth: usize,
    /// `None`: nobody wants any.
    sink: Option<Arc<dyn CompletionSink>>,
    /// What the chunk had.
    ext: Option<Box<ChunkExt>>,
    /// The memory that handles in the items mean.
    needs: Needs,
    pending: Mutex<Pending>,
}

impl Completion {
    /// The call that the items belong to.
    #[must_use]
    pub fn call(&self) -> CallId {
        let sink = self.sink.as_ref();
        sink.map_or(CallId::NOBODY, |sink| sink.call())
    }

    /// The indices of the items in their call.
    #[must_use]
    pub fn indices(&self) -> Range<usize> {
        self.first..self.first + self.count as usize
    }

    /// The indices of the items that have no outcome.
    #[must_use]
    pub fn pending(&self) -> Vec<Range<usize>> {
        let ranges = self.lock().ranges();
        let shift = |it: Range<usize>| it.start + self.first..it.end + self.first;
        ranges.into_iter().map(shift).collect()
    }

    /// Whether nobody wants the outcomes any more, since the call was cancelled: what has not begun
    /// need not be run.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.is_abandoned())
    }

    /// The values that handles in this result mean and that are not in this process: to be got from
    /// where the outcome comes from, and [provided](Outcome::provide), before it is delivered.
    #[must_use]
    pub fn missing(&self, outcome: &Outcome) -> Vec<ContentId> {
        outcome.needs.missing(&self.needs)
    }

    /// Waits for room for a value that the item [emits](crate::ChunkOptions::emits), which then can
    /// be [delivered](Self::emit). It is ready too when none is wanted any more.
    ///
    /// One task waits at a time: the waker of the last one is woken.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.emissions() {
            Some(emissions) if !emissions.poll_room(context.waker()) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// The item has emitted this value, behind those that were delivered before. `false`: there is
    /// no [room](Self::poll_room) for it, or none is wanted: the item has its outcome, was
    /// cancelled, or emits nothing.
    ///
    /// What it [misses](Self::missing) is provided before, as of an outcome.
    #[must_use]
    pub fn emit(&self, value: impl Into<Outcome>) -> bool {
        let Translated {
            result, belongings, ..
        } = self.translate(value.into());
        let value = result.map(|bytes| bytes.with(belongings));
        self.emissions().is_some_and(|it| it.bring(value))
    }

    /// Lets the item go on though nobody reads its values, which stay in memory until somebody
    /// does: for a pool that is [joined](crate::Executor::join), perhaps by their reader.
    pub fn keep_unread(&self) {
        if let Some(emissions) = self.emissions() {
            emissions.lift_bound();
        }
    }

    fn emissions(&self) -> Option<&Arc<Emissions>> {
        self.ext.as_ref()?.emissions.as_ref()
    }

    /// The item with this index has ended like this.
    ///
    /// # Errors
    /// When it has an outcome already, or is none of these: then nothing is delivered.
    pub fn complete(&self, index: usize, outcome: impl Into<Outcome>) -> Result<(), Refused> {
        self.complete_from(index, vec![outcome.into()])
    }

    /// The items from this index on have ended like this, one after the other. To deliver many at
    /// once costs less.
    ///
    /// # Errors
    /// When one has an outcome already, or is none of these: of that nothing is delivered, but of
    /// the others.
    pub fn complete_from(&self, index: usize, outcomes: Vec<Outcome>) -> Result<(), Refused> {
        let mut refused = None;
        let accepted: Vec<bool> = {
            let mut pending = self.lock();
            let claim = |at: usize| {
                let place = index.checked_add(at)?.checked_sub(self.first)?;
                pending.claim(place).then_some(())
            };
            let all = (0..outcomes.len()).map(claim);
            all.map(|claimed| claimed.is_some()).collect()
        };
        let mut batch = Neighbours::default();
        for (at, (outcome, is_accepted)) in outcomes.into_iter().zip(accepted).enumerate() {
            if !is_accepted {
                let refused = refused.get_or_insert(Refused { index, count: 0 });
                if refused.count == 0 {
                    refused.index = index.saturating_add(at);
                }
                refused.count += 1;
                self.deliver(std::mem::take(&mut batch));
                continue;
            }
            let translated = self.translate(outcome);
            // What is known of items' runs stands in a row, and is of as many attempts.
            let differs = batch.runs.is_empty() != translated.run.is_none();
            if batch.count > 0 && (differs || batch.losses != translated.losses) {
                self.deliver(std::mem::take(&mut batch));
            }
            if batch.count == 0 {
                batch.first = index + at;
            }
            batch.add(translated);
        }
        self.deliver(batch);
        match refused {
            None => Ok(()),
            Some(refused) => Err(refused),
        }
    }

    /// The same of outcomes that have come together.
    ///
    /// # Errors
    /// The same.
    #[doc(hidden)]
    pub fn complete_batch(&self, batch: OutcomeBatch) -> Result<(), Refused> {
        let indices = batch.indices();
        let first = indices.start;
        let part = match batch.into_plain() {
            Ok(part) => part,
            Err(outcomes) => return self.complete_from(first, outcomes),
        };
        let place = first.checked_sub(self.first);
        if !place.is_some_and(|place| self.lock().claim_range(place, indices.len())) {
            // Some of them, perhaps.
            let mut outcomes = Vec::with_capacity(indices.len());
            part.into_each(|_, outcome| outcomes.push(outcome));
            return self.complete_from(first, outcomes);
        }
        let ext = self.part(first, indices.len(), 0, Vec::new(), Belongings::default());
        self.send(ChunkOutcome { ext, ..part });
        Ok(())
    }

    /// The same as [`missing`](Self::missing) of outcomes that have come together.
    #[doc(hidden)]
    #[must_use]
    pub fn missing_in(&self, batch: &OutcomeBatch) -> Vec<ContentId> {
        let all = batch.each().iter();
        all.flat_map(|outcome| self.missing(outcome)).collect()
    }

    /// Every item that has no outcome fails with this error.
    pub fn finish(self, error: &TaskError) {
        self.fail_rest(error);
    }

    fn fail_rest(&self, error: &TaskError) {
        let ranges = {
            let mut pending = self.lock();
            let ranges = pending.ranges();
            pending.claim_all();
            ranges
        };
        for range in ranges {
            let first = self.first + range.start;
            let count = range.len() as u32;
            let failed = ChunkOutcome::failed(first, count, error.clone());
            self.send(ChunkOutcome {
                ext: self.part(first, count as usize, 0, Vec::new(), Belongings::default()),
                ..failed
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome as it means something in this process.
    fn translate(&self, outcome: Outcome) -> Translated {
        let Outcome {
            mut result,
            took_ns,
            run,
            losses,
            needs,
        } = outcome;
        let belongings = result.as_ref().ok().and_then(Bytes::belongings);
        let mut belongings = belongings.cloned().unwrap_or_default();
        if let Ok(bytes) = &mut result
            && !needs.is_empty()
        {
            match needs.resolve(&self.needs) {
                Ok(resolved) => {
                    let mut rebased = bytes.as_slice().into_owned();
                    resolved.rebase(&mut rebased);
                    *bytes = rebased.into();
                    belongings.memory = resolved.into_memory();
                }
                Err(error) => {
                    let message = format!("cannot deserialise the result: {error}");
                    result = Err(TaskError::new(TaskErrorKind::Decode, message));
                }
            }
        }
        let is_measured = self.ext.as_ref().and_then(|ext| ext.item_metrics.as_ref());
        let result_bytes = result.as_ref().map_or(0, Bytes::len) as u64;
        let run = is_measured.zip(run).map(|(metrics, run)| {
            let now = sys::now_ns();
            let ItemTiming {
                decode,
                run: ran,
                encode,
                ..
            } = run.measure;
            // Another machine's clock says something else. It has ended by now.
            let total = decode.saturating_add(ran).saturating_add(encode);
            let begun = now.saturating_sub(total);
            let measure = ItemTiming {
                begun,
                ..run.measure
            };
            Run {
                measure: measure.within(metrics.submitted, now),
                result_bytes,
                ..run
            }
        });
        Translated {
            result,
            took_ns,
            run,
            losses: if is_measured.is_some() { losses } else { 0 },
            belongings,
        }
    }

    fn deliver(&self, batch: Neighbours) {
        let count = batch.count;
        if count == 0 {
            return;
        }
        let outcomes = match <[_; 1]>::try_from(batch.results) {
            Ok([result]) => Outcomes::One(Some(result)),
            Err(results) => {
                let mut outcomes = Outcomes::with_capacity(count);
                for result in results {
                    match result {
                        Ok(bytes) => outcomes.push_value(&bytes.as_slice()),
                        Err(error) => outcomes.push_error(error),
                    }
                }
                outcomes
            }
        };
        self.send(ChunkOutcome {
            first: batch.first,
            count,
            took_ns: batch.took_ns,
            outcomes,
            ext: self.part(
                batch.first,
                count as usize,
                batch.losses,
                batch.runs,
                batch.belongings,
            ),
        });
    }

    fn send(&self, batch: ChunkOutcome) {
        if let Some(sink) = &self.sink {
            settle(&**sink, batch);
        }
    }

    /// What the chunk had, for some of its items.
    fn part(
        &self,
        first: usize,
        count: usize,
        losses: u32,
        runs: Vec<Run>,
        offered: Belongings,
    ) -> Option<Box<ChunkExt>> {
        let from = first - self.first;
        match &self.ext {
            Some(ext) => Some(Box::new(ChunkExt {
                failures_to: ext.failures_to.clone(),
                counts: ext.counts.clone(),
                item_metrics: ext
                    .item_metrics
                    .as_ref()
                    .map(|it| it.part(from, count, losses, runs)),
                attachments: ext.attachments.clone(),
                origin: ext.origin.clone(),
                offered,
                descriptors: passing::in_places(&ext.descriptors, from, count),
                counts_errors: ext.counts_errors,
                target: ext.target,
                emissions: ext.emissions.clone(),
                retry: ext.retry.as_ref().map(|it| Box::new(it.part(from, count))),
                // These have gone where the items run, and go there once more with those that are
                // tried again.
                context: ext.context.clone().filter(|_| ext.retry.is_some()),
                control: ext.control.clone().filter(|_| ext.retry.is_some()),
                due: 0,
            })),
            None if offered.is_empty() => None,
            None => Some(Box::new(ChunkExt {
                offered,
                ..ChunkExt::default()
            })),
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // In a copy, a thread that is not in this process may have the lock.
        if self.fork_depth == fork::depth() && self.lock().left > 0 {
            self.fail_rest(&dropped());
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("call", &self.call())
            .field("indices", &self.indices())
            .field("left", &self.lock().left)
            .finish_non_exhaustive()
    }
}

/// An outcome was not delivered, since its item has one already, or is not of the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    index: usize,
    count: usize,
}

impl Refused {
    /// The index of the item, or the first of them.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many outcomes were not delivered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, count } = self;
        write!(
            f,
            "{count} outcomes from item {index} on are refused: the items have one, or are not of \
             the chunk"
        )
    }
}

impl Error for Refused {}

/// An outcome as it is delivered.
struct Translated {
    result: Result<Bytes, TaskError>,
    took_ns: u64,
    run: Option<Run>,
    losses: u32,
    belongings: Belongings,
}

/// The outcomes of neighbours.
#[derive(Default)]
struct Neighbours {
    first: usize,
    count: u32,
    results: Vec<Result<Bytes, TaskError>>,
    took_ns: u64,
    runs: Vec<Run>,
    losses: u32,
    belongings: Belongings,
}

impl Neighbours {
    fn add(&mut self, translated: Translated) {
        self.count += 1;
        self.losses = translated.losses;
        self.results.push(translated.result);
        self.took_ns = self.took_ns.saturating_add(translated.took_ns);
        self.runs.extend(translated.run);
        self.belongings.extend(translated.belongings);
    }
}

/// Which items have no outcome.
struct Pending {
    left: usize,
    count: usize,
    /// A bit for each item: whether it has one.
    done: Vec<u64>,
}

impl Pending {
    fn new(count: usize) -> Self {
        Self {
            left: count,
            count,
            done: vec![0; count.div_ceil(64)],
        }
    }

    /// Takes the item for an outcome. `false`: it has one, or there is no such item.
    fn claim(&mut self, place: usize) -> bool {
        if place >= self.count {
            return false;
        }
        let (word, bit) = (&mut self.done[place / 64], 1 << (place % 64));
        let is_free = *word & bit == 0;
        *word |= bit;
        self.left -= usize::from(is_free);
        is_free
    }

    /// The same of all these items. `false`: one of them has one, or there are not as many, and
    /// none is taken.
    fn claim_range(&mut self, place: usize, count: usize) -> bool {
        let Some(end) = place.checked_add(count).filter(|end| *end <= self.count) else {
            return false;
        };
        // Those of the items that this word has.
        let bits = |word: usize| {
            let (from, to) = (place.max(word * 64), end.min(word * 64 + 64));
            let ones = u64::MAX >> (64 - (to - from));
            ones << (from % 64)
        };
        let words = place / 64..end.div_ceil(64);
        if count == 0 || words.clone().any(|word| self.done[word] & bits(word) != 0) {
            return false;
        }
        words.for_each(|word| self.done[word] |= bits(word));
        self.left -= count;
        true
    }

    fn claim_all(&mut self) {
        self.done.fill(u64::MAX);
        self.left = 0;
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        if self.left == 0 {
            return ranges;
        }
        let is_free = |place: &usize| self.done[place / 64] & (1 << (place % 64)) == 0;
        for place in (0..self.count).filter(is_free) {
            match ranges.last_mut() {
                Some(last) if last.end == place => last.end += 1,
                _ => ranges.push(place..place + 1),
            }
        }
        ranges
    }
}
