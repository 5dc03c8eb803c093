//! What a call is made by: one method for each way to run items and to get their results.

use std::sync::Arc;

use super::Call;
use crate::api::handle::{Collector, Handle, ResultCell};
use crate::api::imap::Imap;
use crate::api::input::call_site::CallSite;
use crate::api::input::feed::InputFeeder;
use crate::api::mode::Mode;
use crate::broadcast::SharedMemory;
use crate::error::queue_full::QueueFull;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::encode::encode_one;
use crate::task::target::Target;
use crate::value::portable::Portable;
use crate::worker::function::Stateless;

/// Verbs whose results come alone.
impl<F> Call<F> {
    /// See [`Pool::try_map`](crate::Pool::try_map).
    ///
    /// # Panics
    /// When the iterator panics.
    pub fn try_map<I, R>(self, items: I) -> Vec<Result<R, TaskError>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        self.collect(site, items.into_iter())
    }

    /// See [`Pool::run_on_each`](crate::Pool::run_on_each).
    pub fn run_on_each<A, R>(self, argument: A) -> Vec<Result<R, TaskError>>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        let collector = Arc::new(Collector::default());
        match self.prepare_for_each::<A, R>(argument) {
            Ok((site, items, attachments)) => {
                let workers = self.executor.processes();
                collector.expect(workers);
                for nth in 0..workers {
                    let mut chunk = site.chunk(nth, 1, items.clone(), false, collector.clone());
                    chunk.attach(attachments.clone());
                    chunk.aim(Target::Nth(nth));
                    self.executor.submit(chunk);
                }
            }
            Err(error) => {
                collector.expect(1);
                collector.complete(ChunkOutcome::failed(0, 1, error));
            }
        }
        Handle::<Vec<Result<R, TaskError>>>::new(collector, self.executor).get()
    }

    #[allow(clippy::type_complexity, reason = "it has one caller")]
    fn prepare_for_each<A, R>(
        &self,
        argument: A,
    ) -> Result<(CallSite, Bytes, Vec<Arc<SharedMemory>>), TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        let site = self.site::<A, R>()?;
        if !self.executor.chooses_workers() {
            return Err(TaskError::new(
                TaskErrorKind::Invalid,
                "this pool does not choose which worker runs what, so it cannot run something on \
                 each: use an initializer",
            ));
        }
        let (items, attachments) = encode_one(argument)?;
        Ok((site, items, attachments))
    }
}
/// Verbs.
impl<F, M: Mode> Call<F, M> {
    /// See [`Pool::apply`](crate::Pool::apply).
    #[allow(clippy::missing_errors_doc, reason = "`M` says how it fails")]
    pub fn apply<A, R>(self, argument: A) -> M::Outcome<R>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        let (progress, counts_errors) = (self.progress.clone(), self.options.counts_errors());
        let handle = self.submit(argument, true);
        if progress.is_shown() {
            handle.wait();
            progress.add(1, handle.failures(counts_errors));
        }
        handle.get()
    }

    /// See [`Pool::apply_async`](crate::Pool::apply_async).
    pub fn apply_async<A, R>(self, argument: A) -> Handle<M::Outcome<R>, M::Cell>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        self.executor.has_room(true);
        self.start(argument)
    }

    /// See [`Pool::try_apply_async`](crate::Pool::try_apply_async).
    ///
    /// # Errors
    /// When the pool's queue is full.
    #[allow(clippy::type_complexity, reason = "`M` says what the handle gives")]
    pub fn try_apply_async<A, R>(
        self,
        argument: A,
    ) -> Result<Handle<M::Outcome<R>, M::Cell>, QueueFull<A>>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        if self.executor.has_room(false) {
            Ok(self.start(argument))
        } else {
            Err(QueueFull(argument))
        }
    }

    fn start<A, R>(self, argument: A) -> Handle<M::Outcome<R>, M::Cell>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        let (progress, counts_errors) = (self.progress.clone(), self.options.counts_errors());
        let handle = self.submit(argument, false);
        if progress.is_shown() {
            handle.on_end(counts_errors, move |failures| progress.add(1, failures));
        }
        handle
    }

    fn submit<A, R>(self, argument: A, attended: bool) -> Handle<M::Outcome<R>, M::Cell>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        let cell = Arc::new(M::Cell::of_one());
        let prepared = self.site::<A, R>().and_then(|site| {
            let start = self.options.is_measured.then(sys::now_ns);
            let (items, attachments) = encode_one(argument)?;
            let mut chunk = site.chunk(0, 1, items, attended, cell.clone());
            chunk.attach(attachments);
            if let Some(start) = start {
                chunk.note_encoding(&[sys::now_ns() - start]);
            }
            Ok(chunk)
        });
        match prepared {
            Ok(chunk) => self.executor.submit(chunk),
            Err(error) => cell.complete(ChunkOutcome::failed(0, 1, error)),
        }
        Handle::new(cell, self.executor)
    }

    /// See [`Pool::map`](crate::Pool::map).
    ///
    /// # Panics
    /// When the iterator panics.
    #[allow(clippy::missing_errors_doc, reason = "`M` says how it fails")]
    pub fn map<I, R>(self, items: I) -> M::Outcomes<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        self.collect(site, items.into_iter())
    }

    /// See [`Pool::map_async`](crate::Pool::map_async).
    pub fn map_async<I, R>(self, items: I) -> Handle<M::Outcomes<R>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        let mut collector = Collector::default();
        if self.progress.is_shown() {
            collector.watch(self.executor.clone(), self.progress.clone());
        }
        let collector = Arc::new(collector);
        match self.site::<I::Item, R>() {
            Ok(site) => self.submit_all(&site, items.into_iter(), &collector),
            Err(error) => {
                collector.expect(1);
                collector.complete(ChunkOutcome::failed(0, 1, error));
            }
        }
        Handle::new(collector, self.executor)
    }

    /// See [`Pool::imap`](crate::Pool::imap).
    pub fn imap<I, R>(self, items: I) -> Imap<R, M::Outcome<R>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        I::IntoIter: Send + 'static,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        Imap::new(site.map(|site| self.source(site, items.into_iter())), true)
    }

    /// See [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    pub fn imap_unordered<I, R>(self, items: I) -> Imap<R, M::Outcome<R>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        I::IntoIter: Send + 'static,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        Imap::new(site.map(|site| self.source(site, items.into_iter())), false)
    }

    /// See [`Pool::imap_local`](crate::Pool::imap_local).
    pub fn imap_local<I, R>(self, items: I) -> Imap<R, M::Outcome<R>, InputFeeder<I::IntoIter>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        Imap::new(site.map(|site| self.feed(site, items.into_iter())), true)
    }

    /// See [`Pool::imap_unordered_local`](crate::Pool::imap_unordered_local).
    pub fn imap_unordered_local<I, R>(
        self,
        items: I,
    ) -> Imap<R, M::Outcome<R>, InputFeeder<I::IntoIter>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        let site = self.site::<I::Item, R>();
        Imap::new(site.map(|site| self.feed(site, items.into_iter())), false)
    }
}
