//! Calls with options, and the one implementation of every kind of call.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::decode::Collect;
use super::handle::{Collector, Handle, ResultCell};
use super::imap::Imap;
use super::input::call_site::CallSite;
use super::input::feed::{InOrder, InputFeeder, Source};
use super::input::feeder::Fed;
use super::mode::{Mode, Plain, WithMetrics};
use super::progress::Progress;
use crate::broadcast::SharedMemory;
use crate::error::queue_full::QueueFull;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::shm::protocol;
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::call_control::{CallControl, Deadline};
use crate::task::chunk::{ChunkOutcome, CompletionSink};
use crate::task::chunk_ext::ChunkExt;
use crate::task::chunker::guided;
use crate::task::context::Context;
use crate::task::encode::{Limit, Stop, encode_one};
use crate::task::executor::Executor;
use crate::task::options::Options;
use crate::task::target::Target;
use crate::value::portable::Portable;
use crate::worker::context::contextual;
use crate::worker::function::{FunctionId, Stateless, assert_captures_nothing};
use crate::worker::state::{stateful, stateful_from};

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
/// | what the function has beside its item | [`context`](Self::context), [`state`](Self::state), [`state_from`](Self::state_from) |
/// | when and where items run | [`priority`](Self::priority), [`on_worker`](Self::on_worker), [`chunksize`](Self::chunksize), [`buffer`](Self::buffer) |
/// | when they end | [`timeout`](Self::timeout), [`deadline`](Self::deadline), [`grace`](Self::grace) |
/// | what is tried again | [`retries`](Self::retries) |
/// | what one sees of them | `progress` (a feature), [`count_errors`](Self::count_errors), [`measured`](Self::measured) |
///
/// # What the verbs give
/// `M` says whether results come alone or [`measured`](Self::measured):
///
/// | verb | [`Plain`], as the pool's own verb | [`WithMetrics`] |
/// |---|---|---|
/// | `apply` | `Result<R, TaskError>` | [`Measured<R>`](crate::Measured) |
/// | `apply_async` | [`TaskHandle<R>`](crate::TaskHandle) | `MeasuredHandle<Measured<R>>` |
/// | `map` | `Result<Vec<R>, TaskError>` | `Vec<Measured<R>>` |
/// | `try_map` | `Vec<Result<R, TaskError>>` | none: `map` has each item's own outcome |
/// | `map_async` | [`MapHandle<R>`](crate::MapHandle) | `MeasuredHandle<Vec<Measured<R>>>` |
/// | `imap`, `imap_unordered` | [`Imap<R>`](crate::Imap) | `ImapMeasured<R>` |
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
}

/// On each worker.
impl<F> Call<F> {
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

/// Options.
impl<F, M> Call<F, M> {
    /// Gives the function a state: a value of any type that `make` makes in each worker before its
    /// first item. It stays there for the items after, and for later calls with the same `make`.
    ///
    /// So a worker sets up once what many items need: an interpreter, a connection, a set of
    /// compiled patterns. It need not be `Send`, nor known to serde, for it never leaves its
    /// worker.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::collections::HashSet;
    /// use procpool::{Pool, SerialPool};
    ///
    /// // Words of at least three letters that this worker has not seen.
    /// let is_new = |seen: &mut HashSet<String>, word: String| word.len() > 2 && seen.insert(word);
    /// let words = ["one", "of", "two", "one"].map(str::to_owned);
    /// let pool = SerialPool::new();
    /// let new = pool.call(is_new).state(HashSet::new).map(words)?;
    /// assert_eq!(new, [true, false, true, false]);
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Its end
    /// It is dropped when the worker leaves in good order, the last that was made first, before the
    /// pool's finalizer. A worker that is killed drops nothing. A task that panics loses the state,
    /// which may be half changed: the next item has a new one.
    ///
    /// A [`SerialPool`](crate::SerialPool) makes one in each thread that calls it, and drops that
    /// with the pool, or else when the thread ends.
    ///
    /// # Errors
    /// Where `make` panics, the item ends as [`State`](TaskErrorKind::State), with the panic's
    /// message. The next item tries again.
    pub fn state<S, A, R, G>(self, make: G) -> Call<impl Fn(A) -> R + Stateless, M>
    where
        F: Fn(&mut S, A) -> R + Stateless,
        G: Fn() -> S + Stateless,
        S: 'static,
    {
        const { assert_captures_nothing::<F>() };
        const { assert_captures_nothing::<G>() };
        self.with_function(|function| stateful(function, make))
    }

    /// The same with a state that is made of a value: of a path, a number of threads, a set of
    /// patterns. `config` travels as a [`context`](Self::context) does.
    ///
    /// The state stays for later calls with the same `make` and an equal `config`. A call with
    /// another one drops it, and makes a new one.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::collections::HashSet;
    /// use procpool::{Pool, SerialPool};
    ///
    /// struct Filter(HashSet<String>);
    ///
    /// let make = |stopped: &Vec<String>| Filter(stopped.iter().cloned().collect());
    /// let keeps = |filter: &mut Filter, word: String| !filter.0.contains(&word);
    /// let stopped = vec!["of".to_owned()];
    /// let words = ["one", "of"].map(str::to_owned);
    /// let kept = SerialPool::new().call(keeps).state_from(make, stopped).map(words)?;
    /// assert_eq!(kept, [true, false]);
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`state`](Self::state) and of [`context`](Self::context).
    pub fn state_from<C, S, A, R, G>(
        self,
        make: G,
        config: C,
    ) -> Call<impl Fn(A) -> R + Stateless, M>
    where
        F: Fn(&mut S, A) -> R + Stateless,
        G: Fn(&C) -> S + Stateless,
        C: Portable + Send + Sync,
        S: 'static,
    {
        const { assert_captures_nothing::<F>() };
        const { assert_captures_nothing::<G>() };
        let call = self.with_context(&config);
        call.with_function(|function| stateful_from(function, make))
    }

    /// Gives the function a value with each item: what a closure would capture.
    ///
    /// The value is encoded once. Up to half a kilobyte travels with each chunk, and is decoded for
    /// each chunk. A larger one goes into shared memory, as a [`Broadcast`](crate::Broadcast),
    /// which each worker maps and decodes once. The memory is freed when the call has ended.
    ///
    /// Calls that share a large value, one after the other, are given a
    /// [`Broadcast`](crate::Broadcast) of it as their context: then it is shared once for all of
    /// them.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let factor = 3;
    /// let scaled = pool.call(|factor: &u64, x: u64| factor * x).context(factor).map([1, 2])?;
    /// assert_eq!(scaled, [3, 6]);
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Errors
    /// A value that cannot be encoded or shared makes the call fail as
    /// [`Encode`](TaskErrorKind::Encode). Where it cannot be decoded, the items fail as
    /// [`Decode`](TaskErrorKind::Decode).
    pub fn context<C, A, R>(self, context: C) -> Call<impl Fn(A) -> R + Stateless, M>
    where
        F: Fn(&C, A) -> R + Stateless,
        C: Portable + Send + Sync,
    {
        const { assert_captures_nothing::<F>() };
        let call = self.with_context(&context);
        call.with_function(contextual)
    }

    /// How long one item may run, from its own beginning. One that takes longer is killed with its
    /// worker, and ends as `TimedOut`; other items are not affected. Without it, there is no limit.
    ///
    /// The outcome comes when the worker is dead, or 100 ms after it was killed: a process that is
    /// being debugged, frozen, or in a system call that cannot be interrupted dies later. Its kill
    /// is pending then, and it runs nothing more of the task; only that system call may still have
    /// its effect. [`Stats::workers_terminating`](crate::Stats::workers_terminating) counts such.
    ///
    /// Time in which the whole program was stopped, or its machine frozen, is not held against an
    /// item: one that is over by the clock then gets as much time again as the deadline was noticed
    /// late, but no more than `timeout`.
    ///
    /// A pool without processes of its own ([`SerialPool`](crate::SerialPool)) cannot keep it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// When the call ends: so long after it was made, or at an `Instant`. It holds for waiting and
    /// running together, and for a map as a whole; [`timeout`](Self::timeout) holds for the running
    /// of each item.
    ///
    /// Items that have ended by then keep their outcome. The others end as
    /// [`DeadlineExceeded`](TaskErrorKind::DeadlineExceeded): those that have not begun are not
    /// run, and those that run are killed, as with `timeout`. None is [retried](Self::retries)
    /// after that. The input of a map is still read to its end: the deadline does not end a wait
    /// for it.
    ///
    /// A deadline that has passed already is no mistake: nothing is run then. Any number of
    /// calls may have one; the pool keeps one timer for all of them.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::time::{Duration, Instant};
    /// use procpool::{Pool, SerialPool, TaskErrorKind};
    ///
    /// let pool = SerialPool::new();
    /// let half = |x: u64| x / 2;
    /// assert_eq!(pool.call(half).deadline(Duration::from_secs(60)).map([2, 4]).unwrap(), [1, 2]);
    /// let late = pool.call(half).deadline(Instant::now()).apply(2).unwrap_err();
    /// assert_eq!(late.kind(), TaskErrorKind::DeadlineExceeded);
    /// ```
    ///
    /// A pool without processes of its own ([`SerialPool`](crate::SerialPool)) looks at it before
    /// each item, and ends none that runs.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.options.special().deadline = Some(deadline.into());
        self
    }

    /// Lets an item that is to end do so in good order: it is asked first, and killed so long
    /// after. [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to it meanwhile.
    ///
    /// | what ends it | asked at | killed at | what it returns meanwhile |
    /// |---|---|---|---|
    /// | [`timeout`](Self::timeout), [`deadline`](Self::deadline) | that time | `grace` later | is its result |
    /// | [`cancel`](crate::Handle::cancel), [`cancel_on_drop`](crate::Handle::cancel_on_drop) | once | `grace` later | is dropped: it is `Cancelled` |
    /// | [`kill`](crate::Handle::kill), [`kill_on_drop`](crate::Handle::kill_on_drop) | never | once | |
    ///
    /// Without it, `timeout` and `deadline` kill at once, and `cancel` never kills.
    ///
    /// ```no_run
    /// # use procpool_core as procpool;
    /// use std::time::Duration;
    /// use procpool::{Pool, SerialPool, worker};
    ///
    /// // The best that was found in ten seconds.
    /// fn search(seed: u64) -> u64 {
    ///     let mut best = seed;
    ///     while !worker::is_cancelled() {
    ///         best = best.max(best.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    ///     }
    ///     best
    /// }
    /// # let pool = SerialPool::new();
    /// let ten_seconds = Duration::from_secs(10);
    /// let best = pool.call(search).timeout(ten_seconds).grace(Duration::from_secs(1)).map(0..4)?;
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// A pool without processes of its own kills nothing and asks nobody.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.special().grace = Some(grace);
        self
    }

    /// Lets what this call has waiting go before what calls of a lower priority have. Without it,
    /// a call has the priority 0; calls of the same priority take turns as they were made.
    ///
    /// It is about what waits: an item that runs is never interrupted for another. What waits in a
    /// worker behind that item is taken back, if every worker is at work.
    ///
    /// What is for [one worker](Self::on_worker) waits apart, in order, whatever its priority.
    ///
    /// There is no ageing. As long as calls of a higher priority keep all workers busy, nothing of
    /// a lower one runs; where that must not be, give what is urgent a pool of its own, or give the
    /// patient calls a [`deadline`](Self::deadline), so that they end.
    ///
    /// A pool without workers ([`SerialPool`](crate::SerialPool)) runs each call when it is made.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let night = pool.call(|x: u64| x * x).priority(-1).map_async(0..1000);
    /// let now = pool.apply(|x: u64| x * x, 12);
    /// assert_eq!(now.unwrap(), 144);
    /// # night.get().unwrap();
    /// ```
    pub fn priority(mut self, priority: i32) -> Self {
        self.options.special().priority = priority;
        self
    }

    /// How often an item is run again whose worker died under it, or which ran out of time.
    /// Without it, never: the item may have had effects. It may run again while its last worker,
    /// which runs nothing any more, is not gone: see [`timeout`](Self::timeout).
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Runs the items in the worker that all calls with an equal `key` go to, as long as it lives,
    /// and then in the one that replaces it: for a cache that only some items need, a connection, a
    /// session.
    ///
    /// Each worker has its share of the keys. They wait for it, even if others have nothing to do;
    /// between two of them, the worker may run one other chunk. When the pool is
    /// [resized](crate::Pool::resize), keys may move to other workers. A pool that does not choose
    /// its workers runs them anywhere.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::collections::HashMap;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let add = |totals: &mut HashMap<String, u64>, (account, sum): (String, u64)| {
    ///     let total = totals.entry(account).or_default();
    ///     *total += sum;
    ///     *total
    /// };
    /// let pool = SerialPool::new();
    /// for (account, sum, total) in [("ann", 1, 1), ("bob", 5, 5), ("ann", 2, 3)] {
    ///     let call = pool.call(add).state(HashMap::new).on_worker(account);
    ///     assert_eq!(call.apply((account.to_owned(), sum))?, total);
    /// }
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    pub fn on_worker(mut self, key: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.options.special().target = Some(Target::Key(hasher.finish()));
        self
    }

    /// How many items travel together to one worker. Without it, that follows from how long
    /// items are seen to take.
    pub fn chunksize(mut self, items: usize) -> Self {
        self.options.chunksize = Some(items);
        self
    }

    /// How many items at most `imap` and `imap_unordered` have taken from their input beyond
    /// those whose result they have given. Without it, enough to keep every worker at work.
    /// A result counts as given when the next one is asked for.
    pub fn buffer(mut self, items: usize) -> Self {
        self.options.buffer = Some(items);
        self
    }

    /// Counts a result that is an `Err` as a failure: on the bar, and in
    /// [`Stats`](crate::Stats::errors_returned). Without it, such a result is a value like any
    /// other.
    ///
    /// What the call returns is the same. See [`FlattenErrors`](crate::FlattenErrors) for one error
    /// in place of two.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// fn parse(text: String) -> Result<u32, String> {
    ///     text.parse().map_err(|_| format!("{text:?} is no number"))
    /// }
    ///
    /// let pool = SerialPool::new();
    /// let texts = ["1", "two"].map(str::to_owned);
    /// let numbers = pool.call(parse).count_errors().map(texts)?;
    /// assert!(numbers[0].is_ok() && numbers[1].is_err());
    /// assert_eq!((pool.stats().succeeded, pool.stats().failed), (1, 1));
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    pub fn count_errors<A, T, E>(mut self) -> Self
    where
        F: Fn(A) -> Result<T, E>,
    {
        self.options.special().counts_errors = true;
        self
    }

    /// Shows on `bar` how far the call is. Needs the feature `progress`.
    ///
    /// Take [`progress::bar()`](crate::progress::bar()) if there is no reason for another one. What
    /// the call does with it:
    /// - The position goes on with the items that have ended, whatever their outcome, a chunk at a
    ///   time.
    /// - A bar without a length gets that of the input, if the input knows it (`size_hint`) or as
    ///   soon as it has come to its end; and when the call is done the bar is finished, as its
    ///   `with_finish` says, or abandoned if the call was given up (an iterator that was dropped,
    ///   an input that panicked). A bar that has a length keeps it, and is finished when it is
    ///   reached: so several calls can share one. Single tasks (`apply`, `apply_async`) do not set
    ///   it.
    /// - How many have failed becomes the message, as `3 failed`, unless the program has set
    ///   another one.
    /// - A bar that is drawn is drawn ten times a second, by a thread of indicatif's, so that time
    ///   goes on while nothing ends. Where there is no terminal nothing is drawn, and there is no
    ///   thread.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool, progress};
    ///
    /// let pool = SerialPool::new();
    /// let bar = progress::bar();
    /// let halves = pool.call(|x: u32| x.checked_div(2).unwrap()).progress(bar.clone());
    /// assert_eq!(halves.map([2, 4, 6]).unwrap(), [1, 2, 3]);
    /// assert_eq!((bar.position(), bar.length()), (3, Some(3)));
    /// assert!(bar.is_finished());
    /// ```
    #[cfg(feature = "progress")]
    pub fn progress(mut self, bar: indicatif::ProgressBar) -> Self {
        self.progress = Progress::on(bar);
        self
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

/// What the verbs consist of.
impl<F, M> Call<F, M> {
    fn with_function<G>(self, wrap: impl FnOnce(F) -> G) -> Call<G, M> {
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
                let size = guided(total - next, workers, site.options.chunksize) as usize;
                let count = size.min(end - next);
                let (chunk, after) = protocol::split_items(rest, count);
                rest = after;
                let sink = collector.clone();
                let mut chunk = site.chunk(next, count as u32, chunk.into(), false, sink);
                chunk.attach(items.attachments.clone());
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
        let entry = FunctionId::of::<F, A, R>(&self.function)
            .map_err(|error| TaskError::new(TaskErrorKind::Invalid, error.to_string()))?;
        Ok(CallSite {
            entry,
            options: self.options.check()?,
            ext: self.ext()?,
        })
    }

    /// What chunks of this call have that ordinary ones are without, if there is any.
    fn ext(&self) -> Result<Option<Box<ChunkExt>>, TaskError> {
        let origin = self.executor.current_span();
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
            control: CallControl::new(special.deadline, special.grace, special.priority),
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
