//! What a call is made by: one method for each way to run items and to get their results.

use std::sync::Arc;

use super::Call;
use crate::api::handle::{Collector, Handle, ResultCell, SingleResult};
use crate::api::imap::Imap;
use crate::api::input::call_site::CallSite;
use crate::api::input::feed::InputFeeder;
use crate::api::mode::{Mode, Plain};
use crate::api::stream_handle::{StreamHandle, StreamSink};
use crate::broadcast::Attachments;
use crate::error::queue_full::QueueFull;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::emissions::Emissions;
use crate::task::encode::encode_one;
use crate::task::target::Target;
use crate::value::portable::Portable;
use crate::worker::arguments::{Behind, Emits, Emitting, Within};
use crate::worker::emitter::Emitter;
use crate::worker::function::{FunctionId, Stateless};

/// How many values of a stream may be unread, unless the call says so.
const BUFFER: u32 = 32;

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
                collector.announce(&*self.executor, site.name(), (workers, Some(workers)));
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

    /// Runs a function that gives values while it runs, and a result in the end. The
    /// [`StreamHandle`] has the values one by one, as soon as the task has [emitted](Emitter::emit)
    /// each, and then the result. Nothing is collected: a task may emit without end.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Emitter, Pool, SerialPool};
    ///
    /// fn countdown(from: u32, out: &Emitter<u32>) -> String {
    ///     for number in (1..=from).rev() {
    ///         if out.emit(number).is_err() {
    ///             break; // The caller wants no more.
    ///         }
    ///     }
    ///     "lift-off".to_owned()
    /// }
    ///
    /// let pool = SerialPool::new();
    /// let mut values = pool.call(countdown).stream(3);
    /// let mut seen = Vec::new();
    /// for number in &mut values {
    ///     seen.push(number?);
    /// }
    /// assert_eq!(seen, [3, 2, 1]);
    /// assert_eq!(values.result()?, "lift-off");
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Back-pressure
    /// At most [`buffer`](Self::buffer) values are unread, 32 without that option: then the task
    /// waits in `emit`. So neither side's memory grows with the number of values, and the most that
    /// this process keeps is that many times the largest value
    /// ([`max_result_bytes`](crate::PoolBuilder::max_result_bytes) bounds that). A larger buffer
    /// costs memory, and a smaller one costs wake-ups.
    ///
    /// A task that waits keeps its worker. So a thread that has more streams than there are workers
    /// reads them in the order in which it has made them, or drops those that it does not read.
    ///
    /// # Options
    /// [`timeout`](Self::timeout) and [`deadline`](Self::deadline) are those of the whole task, the
    /// time included that it waits for the reader. [`retries`](Self::retries), for whatever reason,
    /// are for a task that has emitted nothing: the values of one that has are with the caller, who
    /// must not have them twice. `chunksize` means nothing here.
    ///
    /// With a [`context`](Self::context) or a [`state`](Self::state), the function has that first:
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Emitter, Pool, SerialPool};
    ///
    /// fn grep(pattern: &String, text: String, out: &Emitter<String>) -> usize {
    ///     let found = text.lines().filter(|line| line.contains(pattern));
    ///     found.take_while(|line| out.emit((*line).to_owned()).is_ok()).count()
    /// }
    ///
    /// let pool = SerialPool::new();
    /// let text = "one\ntwo\nthree".to_owned();
    /// let mut lines = pool.call(grep).context("o".to_owned()).stream(text);
    /// assert_eq!(lines.by_ref().collect::<Result<Vec<_>, _>>()?, ["one", "two"]);
    /// assert_eq!(lines.result()?, 2);
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Values
    /// Any that a result may be: also an [`Fd`](crate::Fd), or a [`Broadcast`](crate::Broadcast)
    /// that the task has made or was given, alone or inside of another value. Each unread one may
    /// take a descriptor of this process, so give them a small `buffer`.
    ///
    /// # Pools of other kinds
    /// In a [`SerialPool`](crate::SerialPool) the task runs in a thread of its own, so that it can
    /// wait. A pool that sends its tasks elsewhere has a buffer on each side, or refuses this call
    /// with an error of kind [`Invalid`](TaskErrorKind::Invalid).
    pub fn stream<A, Y, R>(self, argument: A) -> StreamHandle<Y, R>
    where
        F: Fn(A, &Emitter<Y>) -> R + Stateless,
        A: Portable,
        Y: Portable,
        R: Portable,
    {
        self.begin_stream::<A, Y, R, Behind>(argument)
    }

    #[allow(clippy::type_complexity, reason = "it has one caller")]
    fn prepare_for_each<A, R>(
        &self,
        argument: A,
    ) -> Result<(CallSite, Bytes, Attachments), TaskError>
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

/// Of a function that emits values and has a [context](Self::context) or a [state](Self::state).
impl<F> Call<F, Emitting<Plain>> {
    /// See [`stream`](Call::stream) of a call without these.
    pub fn stream<A, Y, R>(self, argument: A) -> StreamHandle<Y, R>
    where
        F: Fn((A, &Emitter<Y>)) -> R + Stateless,
        A: Portable,
        Y: Portable,
        R: Portable,
    {
        self.begin_stream::<A, Y, R, Within>(argument)
    }
}

/// What both consist of.
impl<F, M> Call<F, M> {
    fn begin_stream<A, Y, R, K>(self, argument: A) -> StreamHandle<Y, R>
    where
        F: Emits<A, Y, R, K> + Stateless,
        A: Portable,
        Y: Portable,
        R: Portable,
    {
        self.executor.has_room(true);
        let cell = SingleResult::of_one();
        let buffer = self.options.buffer.map_or(BUFFER, |buffer| {
            // It is added to nothing, but counted modulo that.
            u32::try_from(buffer).unwrap_or(u32::MAX)
        });
        let values = Arc::new(Emissions::new(buffer));
        let sink = Arc::new(StreamSink {
            values: values.clone(),
            outcome: cell.clone(),
        });
        let prepared = self.stream_site::<A, Y, R, K>().and_then(|site| {
            let (items, attachments) = encode_one((buffer, argument))?;
            let mut chunk = site.chunk(0, 1, items, false, sink.clone());
            chunk.attach(attachments);
            chunk.emit_to(values.clone());
            Ok(chunk)
        });
        match prepared {
            Ok(chunk) => self.executor.submit(chunk),
            Err(error) => sink.complete(ChunkOutcome::failed(0, 1, error)),
        }
        let (progress, counts_errors) = (self.progress.clone(), self.options.counts_errors());
        let handle = StreamHandle::new(values, cell, self.executor);
        if progress.is_shown() {
            handle.on_end(counts_errors, move |failures| progress.add(1, failures));
        }
        handle
    }

    fn stream_site<A, Y, R, K>(&self) -> Result<CallSite, TaskError>
    where
        F: Emits<A, Y, R, K> + Stateless,
        A: Portable,
        Y: Portable,
        R: Portable,
    {
        if self.executor.is_foreign() {
            return Err(TaskError::of_fork());
        }
        self.site_of(FunctionId::of_stream::<F, A, Y, R, K>(&self.function))
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
        let cell = M::Cell::of_one();
        let encoded = self.site::<A, R>().and_then(|site| {
            let start = self.options.is_measured.then(sys::now_ns);
            let encoded = encode_one(argument)?;
            Ok((site, encoded, start.map(|start| sys::now_ns() - start)))
        });
        match encoded {
            Ok((site, (items, attachments), took_ns)) => {
                // Not made before it is here, for to move it costs as much as to make it.
                let mut chunk = site.chunk(0, 1, items, attended, cell.clone());
                chunk.attach(attachments);
                if let Some(took_ns) = took_ns {
                    chunk.note_encoding(&[took_ns]);
                }
                self.executor.submit(chunk);
            }
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
