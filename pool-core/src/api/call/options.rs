//! What a call can be asked for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::Call;
#[cfg(feature = "progress")]
use crate::api::progress::Progress;
use crate::codec;
use crate::error::task_error::TaskError;
use crate::task::backoff::Backoff;
use crate::task::call_control::Deadline;
use crate::task::target::Target;
use crate::value::portable::Portable;
use crate::worker::arguments::{Arguments, TakesContext, TakesState};
use crate::worker::context::contextual;
use crate::worker::function::{Stateless, assert_captures_nothing};
use crate::worker::state::{stateful, stateful_from};

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
    /// A function that emits values ([`stream`](Call::stream)) has its emitter last:
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::collections::HashSet;
    /// use procpool::{Emitter, Pool, SerialPool};
    ///
    /// // Emits the words that this worker has not seen.
    /// fn new_words(seen: &mut HashSet<String>, text: String, out: &Emitter<String>) {
    ///     for word in text.split_whitespace().map(str::to_owned) {
    ///         if seen.insert(word.clone()) && out.emit(word).is_err() {
    ///             break; // Nobody wants more.
    ///         }
    ///     }
    /// }
    ///
    /// let pool = SerialPool::new();
    /// let words = pool.call(new_words).state(HashSet::new).stream("to be or not to be".into());
    /// assert_eq!(words.collect::<Result<Vec<_>, _>>()?, ["to", "be", "or", "not"]);
    /// # Ok::<(), procpool::TaskError>(())
    /// ```
    ///
    /// # Its end
    /// It is dropped when the worker leaves in good order, the last that was made first, before the
    /// pool's finalizer. A worker that is killed drops nothing. A task that panics loses the state,
    /// which may be half changed: the next item has a new one.
    ///
    /// A [`SerialPool`](crate::SerialPool) makes one in each thread that calls it, and drops that
    /// with the pool, or else when the thread ends. There, each `stream` has a thread of its own.
    ///
    /// # Errors
    /// Where `make` panics, the item ends as [`State`](crate::TaskErrorKind::State), with the
    /// panic's message. The next item tries again.
    pub fn state<S, In, R, G>(
        self,
        make: G,
    ) -> Call<impl for<'e> Fn(In::Of<'e>) -> R + Stateless, In::Mode<M>>
    where
        F: TakesState<S, In, R> + Stateless,
        G: Fn() -> S + Stateless,
        S: 'static,
        In: Arguments,
    {
        const { assert_captures_nothing::<F>() };
        const { assert_captures_nothing::<G>() };
        self.with_function(|function| stateful::<_, _, _, In, _>(function, make))
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
    pub fn state_from<C, S, In, R, G>(
        self,
        make: G,
        config: C,
    ) -> Call<impl for<'e> Fn(In::Of<'e>) -> R + Stateless, In::Mode<M>>
    where
        F: TakesState<S, In, R> + Stateless,
        G: Fn(&C) -> S + Stateless,
        C: Portable + Send + Sync,
        S: 'static,
        In: Arguments,
    {
        const { assert_captures_nothing::<F>() };
        const { assert_captures_nothing::<G>() };
        let call = self.with_context(&config);
        call.with_function(|function| stateful_from::<_, _, _, _, In, _>(function, make))
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
    /// A function that emits values is a `Fn(&C, A, &Emitter<Y>) -> R`: see
    /// [`stream`](Call::stream).
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
    /// [`Encode`](crate::TaskErrorKind::Encode). Where it cannot be decoded, the items fail as
    /// [`Decode`](crate::TaskErrorKind::Decode).
    pub fn context<C, In, R>(
        self,
        context: C,
    ) -> Call<impl for<'e> Fn(In::Of<'e>) -> R + Stateless, In::Mode<M>>
    where
        F: TakesContext<C, In, R> + Stateless,
        C: Portable + Send + Sync,
        In: Arguments,
    {
        const { assert_captures_nothing::<F>() };
        let call = self.with_context(&context);
        call.with_function(contextual::<_, _, In, _>)
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
    /// [`DeadlineExceeded`](crate::TaskErrorKind::DeadlineExceeded): those that have not begun are
    /// not run, and those that run are killed, as with `timeout`. None is [retried](Self::retries)
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

    /// What this call is called by who [observes](crate::Pool::observe) the pool, in traces and in
    /// dumps. Without it, it has the name of the function. Choose few names, such as one for each
    /// kind of job: metrics are kept by name.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Observe, Pool, PoolEvent, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let mut observer = pool.observe(Observe::Items)?;
    /// pool.call(|x: u64| x * x).name("square").apply(3)?;
    /// let event = observer.try_recv();
    /// assert!(matches!(event, Some(PoolEvent::ItemEnded { call, .. }) if call == "square"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.options.special().name = Some(name.into());
        self
    }

    /// How often an item is run again whose worker died under it, or which ran out of time.
    /// Without it, never: the item may have had effects. It may run again while its last worker,
    /// which runs nothing any more, is not gone: see [`timeout`](Self::timeout).
    ///
    /// [`retry_if`](Self::retry_if) and [`retry_errors`](Self::retry_errors) choose other reasons,
    /// and [`backoff`](Self::backoff) lets time pass before.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Chooses which failures of an item are a reason to run it again, up to
    /// [`retries`](Self::retries) times. Without it, its worker's death and the end of its
    /// [`timeout`](Self::timeout) are.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool, TaskError};
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    ///
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn third_time_lucky(x: u64) -> u64 {
    ///     assert!(CALLS.fetch_add(1, Relaxed) == 2, "the server is busy");
    ///     x
    /// }
    ///
    /// let is_busy = |error: &TaskError| error.to_string().contains("busy");
    /// let pool = SerialPool::new();
    /// let call = pool.call(third_time_lucky).retries(5).retry_if(is_busy);
    /// assert_eq!(call.apply(7).unwrap(), 7);
    /// ```
    ///
    /// It is asked in this process, about every item without a value: one that panicked, lost its
    /// worker, ran out of memory or time, or has a result that cannot be encoded. For an item of a
    /// map, the error has the [index](crate::TaskError::index). It is not asked about what was
    /// ended on purpose, or what no pool can run: an item that was cancelled, one whose call is
    /// past its [`deadline`](Self::deadline), one of a pool that has ended.
    ///
    /// The items of a map are run again one by one, and the results keep their order. The item
    /// goes to any worker, or to [its own](Self::on_worker), ahead of others of its
    /// [priority](Self::priority). It has one outcome, that of its last attempt: callbacks, the
    /// [progress bar](Self#options-by-what-they-are-for) and [`Stats`](crate::Stats) see no other.
    /// Each attempt has the whole `timeout`; the deadline holds for all attempts together.
    ///
    /// The thread that takes in the failure asks: one that waits for a result of the pool, one that
    /// submits a task, or the pool's own, which also starts workers and keeps time. So `is_reason`
    /// is to be quick. It may submit tasks. It must not wait for the pool: for a result, for its
    /// end, or for a lock that a thread keeps while it submits or waits. If it panics, the answer
    /// is no.
    pub fn retry_if(
        mut self,
        is_reason: impl Fn(&TaskError) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.options.retry_rules().retry_if = Some(Arc::new(is_reason));
        self
    }

    /// Chooses which of the function's own errors are a reason to run an item again: the `E` of a
    /// result that is an `Err`. Without it, none is: such a result is a value like any other.
    ///
    /// What is lost or out of time is tried again as without it; [`retries`](Self::retries) counts
    /// both. Everything else is as with [`retry_if`](Self::retry_if).
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Backoff, Pool, SerialPool};
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use std::time::Duration;
    ///
    /// static CALLS: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn fetch(url: String) -> Result<usize, u16> {
    ///     if CALLS.fetch_add(1, Relaxed) < 2 { Err(503) } else { Ok(url.len()) }
    /// }
    ///
    /// let pool = SerialPool::new();
    /// let fetched = pool
    ///     .call(fetch)
    ///     .retries(5)
    ///     .retry_errors(|status| *status == 503)
    ///     .backoff(Backoff::exponential(Duration::from_millis(1)).jitter(true))
    ///     .apply("http://[::1]/".to_owned());
    /// assert_eq!(fetched.unwrap(), Ok(13));
    /// ```
    ///
    /// The error is decoded for it in this process. One that cannot be is no reason.
    pub fn retry_errors<A, T, E>(
        mut self,
        is_reason: impl Fn(&E) -> bool + Send + Sync + 'static,
    ) -> Self
    where
        F: Fn(A) -> Result<T, E>,
        T: Portable,
        E: Portable,
    {
        self.options.retry_rules().retry_errors = Some(Arc::new(move |result| {
            let result = codec::decode::<Result<T, E>>(result);
            matches!(result, Ok(Err(error)) if is_reason(&error))
        }));
        self
    }

    /// How long an item waits before it is tried again: a `Duration`, or a
    /// [`Backoff`](crate::Backoff) that grows. Without it, it does not wait.
    ///
    /// It waits in this process, with other items that wait, and no thread or worker is kept for
    /// it. Among what a bounded queue ([`max_queued`](crate::PoolBuilder::max_queued)) holds, it
    /// counts. `close` and `join` wait for it; `terminate`, and a `cancel` or `kill` of its call,
    /// end it at once. An attempt that could not begin before the call's
    /// [`deadline`](Self::deadline) is not made: the item ends with the error that it has.
    ///
    /// A [`SerialPool`](crate::SerialPool) waits in the thread that calls. A pool of the program's
    /// own is given the [delay](crate::ChunkOptions::delay), and tries again at once if it does not
    /// keep that.
    pub fn backoff(mut self, backoff: impl Into<Backoff>) -> Self {
        self.options.retry_rules().backoff = Some(backoff.into());
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
    ///
    /// Of a [`stream`](Self::stream), how many values at most are unread, before its task waits.
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
