//! Calls with options, and the one implementation of every kind of call.

mod options;
mod verbs;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;

use crate::api::decode::Collect;
use crate::api::handle::Collector;
use crate::api::input::call_site::CallSite;
use crate::api::input::feed::{InOrder, InputFeeder, Source};
use crate::api::input::feeder::Fed;
use crate::api::mode::{Plain, WithMetrics};
use crate::api::progress::Progress;
use crate::api::retry::RetryPolicy;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::shm::protocol;
use crate::task::call_control::CallControl;
use crate::task::chunk_ext::ChunkExt;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::chunker::guided;
use crate::task::context::Context;
use crate::task::encode::{Limit, Stop};
use crate::task::executor::Executor;
use crate::task::options::{Options, ValidatedOptions};
use crate::value::portable::Portable;
use crate::worker::function::{FunctionId, NotInObject, Stateless};

/// A call with options: what [`Pool::call`](crate::Pool::call) returns. Set the options, then
/// call one of the verbs that a pool itself has.
///
/// ```
/// # use procpool_core as procpool;
/// use std::time::Duration;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// let lengths = pool
///     .call(|line: String| line.len())
///     .timeout(Duration::from_secs(5))
///     .retries(1)
///     .chunksize(100)
///     .map(["a".to_owned(), "bc".to_owned()]);
/// assert_eq!(lengths.unwrap(), [1, 2]);
/// ```
///
/// An option that makes no sense, such as a chunk size of zero, makes the call fail with an
/// error of kind `Invalid`.
///
/// # Options, by what they are for
/// | | |
/// |---|---|
/// | what the function has beside its item | [`context`], [`state`], [`state_from`] |
/// | when and where items run | [`priority`], [`on_worker`], [`chunksize`], [`buffer`] |
/// | when they end | [`timeout`], [`deadline`], [`grace`] |
/// | what is tried again | [`retries`], [`retry_if`], [`retry_errors`], [`backoff`] |
/// | what one sees of them | [`name`], `progress` (a feature), [`count_errors`], [`measured`] |
///
/// [`context`]: Self::context
/// [`state`]: Self::state
/// [`state_from`]: Self::state_from
/// [`name`]: Self::name
/// [`priority`]: Self::priority
/// [`on_worker`]: Self::on_worker
/// [`chunksize`]: Self::chunksize
/// [`buffer`]: Self::buffer
/// [`timeout`]: Self::timeout
/// [`deadline`]: Self::deadline
/// [`grace`]: Self::grace
/// [`retries`]: Self::retries
/// [`retry_if`]: Self::retry_if
/// [`retry_errors`]: Self::retry_errors
/// [`backoff`]: Self::backoff
/// [`count_errors`]: Self::count_errors
/// [`measured`]: Self::measured
///
/// # What the verbs give
/// `M` says whether results come alone or [`measured`](Self::measured), or
/// [behind values](crate::Emitting):
///
/// | verb | [`Plain`], as the pool's own verb | [`WithMetrics`] |
/// |---|---|---|
/// | `apply` | `Result<R, TaskError>` | [`Measured<R>`](crate::Measured) |
/// | `apply_async` | [`TaskHandle<R>`](crate::TaskHandle) | `MeasuredHandle<Measured<R>>` |
/// | `map` | `Result<Vec<R>, TaskError>` | `Vec<Measured<R>>` |
/// | `try_map` | `Vec<Result<R, TaskError>>` | none: `map` has each item's own outcome |
/// | `map_async` | [`MapHandle<R>`](crate::MapHandle) | `MeasuredHandle<Vec<Measured<R>>>` |
/// | `imap`, `imap_unordered` | [`Imap<R>`](crate::Imap) | `ImapMeasured<R>` |
/// | `stream` | [`StreamHandle<Y, R>`](crate::StreamHandle) | none |
/// | `imap_local`, ... | [`ImapLocal<I, R>`](crate::ImapLocal) | `ImapMeasuredLocal<I, R>` |
#[must_use = "a call does nothing until one of `apply`, `map`, ... is called"]
pub struct Call<F, M = Plain> {
    executor: Arc<dyn Executor>,
    options: Options,
    progress: Progress,
    function: F,
    mode: PhantomData<fn() -> M>,
}

/// A [`Call`] whose results come with metrics: what [`Call::measured`] returns.
pub type MeasuredCall<F> = Call<F, WithMetrics>;

impl<F> Call<F> {
    pub(crate) fn new(executor: Arc<dyn Executor>, function: F) -> Self {
        Self {
            executor,
            options: Options::default(),
            progress: Progress::default(),
            function,
            mode: PhantomData,
        }
    }

    /// Lets each result come with a [`TaskMetrics`](crate::TaskMetrics): how long the item waited
    /// and ran, what it took in processor time and memory, which worker had it.
    ///
    /// To measure an item costs a microsecond or two; calls without metrics do not pay for it.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let done = pool.call(|x: u64| x * x).measured().apply(7);
    /// assert_eq!(done.outcome.unwrap(), 49);
    /// assert_eq!(done.metrics.attempt, 1);
    /// println!("{}", done.metrics);
    /// ```
    pub fn measured(mut self) -> MeasuredCall<F> {
        self.options.is_measured = true;
        Call {
            executor: self.executor,
            options: self.options,
            progress: self.progress,
            function: self.function,
            mode: PhantomData,
        }
    }
}

/// What the verbs consist of.
impl<F, M> Call<F, M> {
    fn with_function<G, N>(self, wrap: impl FnOnce(F) -> G) -> Call<G, N> {
        Call {
            executor: self.executor,
            options: self.options,
            progress: self.progress,
            function: wrap(self.function),
            mode: PhantomData,
        }
    }

    fn with_context<C: Portable + Send + Sync>(mut self, context: &C) -> Self {
        self.options.special().context = Some(Context::new(context).map(Arc::new));
        self
    }

    /// Runs all items and gives what became of them, in order.
    fn collect<A, T>(self, site: Result<CallSite, TaskError>, items: impl Iterator<Item = A>) -> T
    where
        A: Serialize + 'static,
        T: Collect,
    {
        let site = match site {
            Ok(site) => site,
            // Nothing was run.
            Err(error) => return T::refused(error, items),
        };
        let mut all = T::with_room(items.size_hint().0);
        let feed = InputFeeder::new(self.executor, site, items, self.progress);
        let mut feed = feed.eager(true);
        let mut in_order = InOrder::default();
        loop {
            let parts = feed.next_parts();
            if parts.is_empty() {
                break;
            }
            for part in parts {
                in_order.push(part);
            }
            while let Some(part) = in_order.pop() {
                feed.give(part.count as usize);
                all.add(part);
            }
        }
        feed.rethrow();
        // An input may fork, and return in both.
        if let Some(error) = feed.error() {
            all.fail(error);
        }
        all
    }

    fn submit_all<A, I>(&self, site: &CallSite, mut input: I, collector: &Arc<Collector>)
    where
        A: Serialize + 'static,
        I: Iterator<Item = A>,
    {
        // All is encoded before anything is sent, so that an input that panics has submitted
        // nothing.
        let mut items = site.items();
        let mut failed = Vec::new();
        loop {
            match items.extend(&mut input, Limit::NONE) {
                Stop::Full | Stop::Wanted | Stop::Exhausted => break,
                // The item has an index, but no bytes.
                Stop::Failed(error) => failed.push((items.count + failed.len(), error)),
                Stop::Panicked(panic) => std::panic::resume_unwind(panic),
            }
        }
        let total = items.count + failed.len();
        collector.announce(&*self.executor, site.name(), (total, Some(total)));
        collector.expect(total);
        let workers = self.executor.processes();
        let mut rest = &items.bytes[..];
        let mut next = 0;
        let mut sent = 0;
        for (end, error) in failed
            .into_iter()
            .map(|(at, error)| (at, Some(error)))
            .chain([(total, None)])
        {
            while next < end {
                let size = match items.attachments.descriptors().is_empty() {
                    true => guided(total - next, workers, site.options.chunksize) as usize,
                    // Alone, so that each is closed as soon as its item has ended.
                    false => 1,
                };
                let count = size.min(end - next);
                let (chunk, after) = protocol::split_items(rest, count);
                rest = after;
                let sink = collector.clone();
                let mut chunk = site.chunk(next, count as u32, chunk.into(), false, sink);
                chunk.attach_from(&mut items.attachments);
                chunk.note_encoding(items.times.get(sent..sent + count).unwrap_or_default());
                self.executor.submit(chunk);
                next += count;
                sent += count;
            }
            if let Some(error) = error {
                collector.complete(ChunkOutcome::failed(next, 1, error));
                next += 1;
            }
        }
    }

    /// What gives a lazy map its outcomes.
    fn source<A, I>(self, site: CallSite, items: I) -> Box<dyn Source + Send>
    where
        A: Serialize + 'static,
        I: Iterator<Item = A> + Send + 'static,
    {
        if self.executor.runs_in_caller() {
            Box::new(self.feed(site, items))
        } else {
            Box::new(Fed::new(self.executor, site, items, self.progress))
        }
    }

    /// The same for an input that is read by the caller.
    fn feed<A, I>(self, site: CallSite, items: I) -> InputFeeder<I>
    where
        A: Serialize + 'static,
        I: Iterator<Item = A>,
    {
        let is_one_by_one = self.executor.runs_in_caller();
        let feed = InputFeeder::new(self.executor, site, items, self.progress);
        if is_one_by_one {
            feed.one_by_one()
        } else {
            feed
        }
    }

    /// What the chunks of this call have in common, if it can be made.
    fn site<A, R>(&self) -> Result<CallSite, TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        if self.executor.is_foreign() {
            return Err(TaskError::of_fork());
        }
        self.site_of(FunctionId::of::<F, A, R>(&self.function))
    }

    fn site_of(&self, entry: Result<FunctionId, NotInObject>) -> Result<CallSite, TaskError> {
        let entry =
            entry.map_err(|error| TaskError::new(TaskErrorKind::Invalid, error.to_string()))?;
        let options = self.options.check()?;
        let mut ext = self.ext(entry)?;
        let retry = self.retry_policy(entry, &options).map(Arc::new);
        if let Some(policy) = &retry {
            ext.get_or_insert_default().retry = Some(policy.retry());
        }
        Ok(CallSite {
            entry,
            options,
            ext,
            retry,
        })
    }

    /// How items of this call are tried again, if that is not for the workers' deaths alone.
    fn retry_policy(&self, entry: FunctionId, options: &ValidatedOptions) -> Option<RetryPolicy> {
        let rules = self.options.special.as_ref()?.retry.clone()?;
        (options.retries > 0).then(|| RetryPolicy {
            executor: Arc::downgrade(&self.executor),
            entry,
            timeout: options.timeout,
            retries: options.retries,
            rules,
        })
    }

    /// What chunks of this call have that ordinary ones are without, if there is any.
    fn ext(&self, entry: FunctionId) -> Result<Option<Box<ChunkExt>>, TaskError> {
        let name = self
            .options
            .special
            .as_ref()
            .and_then(|it| it.name.as_deref());
        let origin = self.executor.call_span(entry, name);
        let Some(special) = &self.options.special else {
            let of_span = |origin| ChunkExt {
                origin: Some(origin),
                ..ChunkExt::default()
            };
            return Ok(origin.map(of_span).map(Box::new));
        };
        let context = special.context.clone().transpose()?;
        let attachments = context.as_ref().map(|it| it.memory.clone());
        Ok(Some(Box::new(ChunkExt {
            origin,
            attachments: attachments.unwrap_or_default(),
            context,
            control: CallControl::new(
                special.deadline,
                special.grace,
                special.priority,
                special.name.clone(),
            ),
            counts_errors: special.counts_errors,
            target: special.target,
            ..ChunkExt::default()
        })))
    }
}

impl<F, M> fmt::Debug for Call<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
