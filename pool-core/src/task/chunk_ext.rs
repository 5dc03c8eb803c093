//! What few chunks have.

use std::borrow::Cow;
use std::sync::Arc;

use super::bytes::Bytes;
use super::call_control::CallControl;
use super::context::Context;
use super::emissions::Emissions;
use super::item_counts::ItemCounts;
use super::item_metrics::ItemMetrics;
use super::target::Target;
use super::traced::Traced;
use crate::broadcast::{Belongings, SharedMemory};
use crate::observe::call_span::Origin;
use crate::passing::{self, Outgoing};
use crate::shm::protocol;
use crate::worker::function::FunctionId;

/// A part of a chunk that ordinary tasks are without, so that they do not pay for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChunkExt {
    /// Where to report items that fail, to those who do not want to know of each item.
    pub(crate) failures_to: Option<Traced>,
    /// Where its items are counted when they end, by an executor of the program's own.
    pub(crate) counts: Option<ItemCounts>,
    /// What is known of items that are measured.
    pub(crate) item_metrics: Option<ItemMetrics>,
    /// The memory that handles in the items mean. It lives as long as the chunk, and then as long
    /// as the results, in which there may be such handles again.
    pub(crate) attachments: Vec<Arc<SharedMemory>>,
    /// The descriptors that stand in the items, each with the place of its item. They are closed
    /// here when the items have their outcomes.
    pub(crate) descriptors: Vec<(u32, Arc<Outgoing>)>,
    /// The span that the call was made in, which workers' events belong to.
    pub(crate) origin: Option<Arc<Origin>>,
    /// The memory and descriptors that came with results. They live as long as these.
    pub(crate) offered: Belongings,
    /// What the function gets with each item.
    pub(crate) context: Option<Arc<Context>>,
    /// A value that is an `Err` counts as a failure.
    pub(crate) counts_errors: bool,
    /// When the call ends, and how.
    pub(crate) control: Option<Arc<CallControl>>,
    /// The worker that is to run it.
    pub(crate) target: Option<Target>,
    /// Where the values go that its one item emits.
    pub(crate) emissions: Option<Arc<Emissions>>,
    /// What is needed to try its items again.
    pub(crate) retry: Option<Box<Retry>>,
    /// Before this it is not to begin, in nanoseconds of the monotonic clock; 0: it may at once.
    pub(crate) due: u64,
}

/// What is known of items that may be tried again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    /// How often each of them.
    pub(crate) left: u32,
    /// Values may be a reason, too.
    pub(crate) judges_values: bool,
    /// The items, as soon as they have outcomes.
    pub(crate) items: Bytes,
    /// Those of their chunk.
    pub(crate) attended: bool,
}

impl Retry {
    /// The same of some of the items.
    pub(crate) fn part(&self, from: usize, count: usize) -> Self {
        let items = self.items.as_slice();
        let (_, rest) = protocol::split_items(&items, from);
        let (items, _) = protocol::split_items(rest, count);
        Self {
            items: items.into(),
            ..*self
        }
    }
}

/// What a call of this function is called.
pub(crate) fn call_name(entry: FunctionId, ext: Option<&ChunkExt>) -> Cow<'static, str> {
    match ext.and_then(|ext| ext.control.as_ref()?.name.as_ref()) {
        Some(name) => Cow::Owned((**name).to_owned()),
        None => Cow::Borrowed(entry.name()),
    }
}

impl ChunkExt {
    /// What handles in outcomes may mean.
    pub(crate) fn into_belongings(self) -> Belongings {
        let mut belongings = self.offered;
        belongings.memory.extend(self.attachments);
        belongings
    }

    /// Those of the items from `at` on; the ones before keep the rest, and all results. If there
    /// are none before, nothing is kept for them: an empty chunk may stay for long with a worker
    /// that has yet to pass over it.
    pub(crate) fn split_off(&mut self, at: u32) -> Self {
        let item_metrics = self
            .item_metrics
            .as_mut()
            .map(|item_metrics| item_metrics.split_off(at));
        let (attachments, origin, context) = if at == 0 {
            (
                std::mem::take(&mut self.attachments),
                self.origin.take(),
                self.context.take(),
            )
        } else {
            (
                self.attachments.clone(),
                self.origin.clone(),
                self.context.clone(),
            )
        };
        let mut descriptors = Vec::new();
        for (place, descriptor) in self.descriptors.extract_if(.., |(place, _)| *place >= at) {
            descriptors.push((place - at, descriptor));
        }
        Self {
            failures_to: self.failures_to.clone(),
            counts: self.counts.clone(),
            item_metrics,
            attachments,
            origin,
            descriptors,
            offered: Belongings::default(),
            context,
            counts_errors: self.counts_errors,
            control: self.control.clone(),
            target: self.target,
            emissions: self.emissions.clone(),
            retry: self.retry.clone(),
            due: self.due,
        }
    }

    /// That of some of the items, whose outcomes are final.
    pub(crate) fn of_final(&self, from: usize, count: usize) -> Self {
        let metrics = self.item_metrics.as_ref();
        Self {
            item_metrics: metrics.map(|it| it.slice(from, count)),
            retry: None,
            descriptors: Vec::new(),
            ..self.clone()
        }
    }

    /// That of the item at this place, which is tried once more, at this time or later.
    pub(crate) fn of_retry(&self, place: usize, submitted: u64, due: u64) -> Self {
        let metrics = self.item_metrics.as_ref();
        let retry = self.retry.as_ref().map(|it| {
            Box::new(Retry {
                left: it.left.saturating_sub(1),
                items: Bytes::default(),
                ..**it
            })
        });
        Self {
            item_metrics: metrics.map(|it| it.of_retry(place, submitted.max(due))),
            descriptors: passing::in_places(&self.descriptors, place, 1),
            offered: Belongings::default(),
            retry,
            due,
            ..self.clone()
        }
    }
}
