//! Calls whose results come with metrics.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ImapMeasured, ImapMeasuredLocal, Measured, MeasuredHandle};
use crate::api::call::{Call, reserve};
use crate::api::handle::{Collector, Pending};
use crate::sys;
use crate::task::chunk::{ChunkOutcome, CompletionSink};
use crate::task::encode::encode_one;
use crate::worker::function::Stateless;

/// A call whose results come with metrics: what [`Call::measured`] returns.
///
/// Each item has its own outcome here, so there is no `try_map` besides `map`.
#[must_use = "a call does nothing until one of `apply`, `map`, ... is called"]
pub struct MeasuredCall<F> {
    call: Call<F>,
}

impl<F> MeasuredCall<F> {
    pub(crate) fn new(call: Call<F>) -> Self {
        Self { call }
    }

    /// See [`Pool::apply`](crate::Pool::apply).
    pub fn apply<A, R>(self, argument: A) -> Measured<R>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let progress = self.call.progress.clone();
        let receipted = self.submit(argument, true).get();
        progress.add(1, receipted.outcome.is_err().into());
        receipted
    }

    /// See [`Pool::apply_async`](crate::Pool::apply_async).
    pub fn apply_async<A, R>(self, argument: A) -> MeasuredHandle<Measured<R>>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let progress = self.call.progress.clone();
        let handle = self.submit(argument, false);
        if progress.is_shown() {
            handle.on_end(move |failures| progress.add(1, failures));
        }
        handle
    }

    fn submit<A, R>(self, argument: A, attended: bool) -> MeasuredHandle<Measured<R>>
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let collector = Arc::new(Collector::default());
        collector.expect(1);
        let start = sys::now_ns();
        let prepared = self
            .call
            .site::<A, R>()
            .and_then(|site| Ok((site, encode_one(argument)?)));
        match prepared {
            Ok((site, (item, attachments))) => {
                let took = sys::now_ns() - start;
                let mut chunk = site.chunk(0, 1, item, attended, collector.clone());
                chunk.attach(attachments);
                chunk.note_encoding(&[took]);
                self.call.executor().submit(chunk);
            }
            Err(error) => collector.complete(ChunkOutcome::failed(0, 1, error)),
        }
        MeasuredHandle::new(Pending::new(collector, self.call.executor().clone()))
    }

    /// See [`Pool::try_map`](crate::Pool::try_map).
    ///
    /// # Panics
    /// When the iterator panics.
    pub fn map<I, R>(self, items: I) -> Vec<Measured<R>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        let items = items.into_iter();
        let mut all = Vec::with_capacity(reserve(&items));
        match self.call.check::<I::Item, R>() {
            Ok(_) => {
                let done = self
                    .call
                    .for_each::<_, R>(items, |piece| Measured::read_all(piece, &mut all));
                // An input may fork, and return in both.
                all.extend(done.err().map(|error| Measured {
                    outcome: Err(error),
                    metrics: crate::observe::task_metrics::TaskMetrics::default(),
                }));
            }
            // Nothing was run; each item fails for the same reason.
            Err(error) => all.extend(items.enumerate().map(|(index, _)| Measured {
                outcome: Err(error.clone().at_index(index)),
                metrics: crate::observe::task_metrics::TaskMetrics::default(),
            })),
        }
        all
    }

    /// See [`Pool::map_async`](crate::Pool::map_async).
    pub fn map_async<I, R>(self, items: I) -> MeasuredHandle<Vec<Measured<R>>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        MeasuredHandle::new(self.call.submit_map::<_, R>(items))
    }

    /// See [`Pool::imap`](crate::Pool::imap).
    pub fn imap<I, R>(self, items: I) -> ImapMeasured<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapMeasured::new(self.call.source::<I, R>(items), true)
    }

    /// See [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    pub fn imap_unordered<I, R>(self, items: I) -> ImapMeasured<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        I::IntoIter: Send + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapMeasured::new(self.call.source::<I, R>(items), false)
    }

    /// See [`Pool::imap_local`](crate::Pool::imap_local).
    pub fn imap_local<I, R>(self, items: I) -> ImapMeasuredLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapMeasuredLocal::new(self.call.feed::<I, R>(items), true)
    }

    /// See [`Pool::imap_unordered_local`](crate::Pool::imap_unordered_local).
    pub fn imap_unordered_local<I, R>(self, items: I) -> ImapMeasuredLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Serialize + DeserializeOwned + 'static>,
        R: Serialize + DeserializeOwned + 'static,
    {
        ImapMeasuredLocal::new(self.call.feed::<I, R>(items), false)
    }
}

impl<F> fmt::Debug for MeasuredCall<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeasuredCall").field(&self.call).finish()
    }
}
