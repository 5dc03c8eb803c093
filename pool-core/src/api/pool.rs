//! What users program against.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::call::Call;
use super::handle::{MapHandle, TaskHandle};
use super::imap::{Imap, ImapLocal};
use super::join_future::JoinFuture;
use super::observer::Observer;
use super::trace::Trace;
use super::weak_pool::WeakPool;
use crate::broadcast::{Broadcast, BroadcastError, IntoBroadcast};
use crate::error::build_error::{JoinError, ResizeError};
use crate::error::queue_full::QueueFull;
use crate::error::task_error::TaskError;
use crate::observe::dump::Dump;
use crate::observe::stats::Stats;
use crate::observe::tracer::Observe;
use crate::task::executor::Executor;
use crate::value::portable::Portable;
use crate::worker::function::{Stateless, assert_captures_nothing};

/// A pool of workers: run a function over data, somewhere else.
///
/// Every backend's pool implements it, so code that is generic over `P: Pool` runs on all of
/// them, and on [`SerialPool`](crate::SerialPool) for tests and debugging. All methods are
/// provided ones but [`executor`](Self::executor), which is where a pool of your own plugs in.
///
/// # Functions and values
/// A function is a function item or a closure that captures nothing, since it runs in another
/// process, to which only its *name* travels. `cargo build` checks that, and `cargo check` does
/// not; see [`Stateless`]. What a closure would capture is the [context](Call::context) of the
/// call. One thing cannot be checked: a `move` closure must not capture a value without bytes that
/// proves to `unsafe` code that this *process* has done something, for the worker has not;
/// [`Stateless`] says more. Several arguments are a tuple. Arguments and results are [`Portable`]:
/// serde carries them. They travel in a compact binary form that does not say what it is; a few
/// types need a wrapper for that. The first page of `procpool` has the list of them, under "What
/// can travel".
///
/// # Contract
/// - Every call ends: with its value, or with a [`TaskError`] that says why there is none, also
///   when a worker is killed, the function never returns and the pool is terminated, or no worker
///   can be started.
/// - What fails, fails alone: an item that panics or takes its worker down affects no other item.
/// - After [`close`](Self::close) a call fails as `Closed`; it neither panics nor hangs.
/// - A clone is the same pool. Dropping the last one terminates it.
///
/// # Example
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// fn total<P: Pool>(pool: &P, numbers: Vec<u64>) -> u64 {
///     pool.map(|x: u64| x * x, numbers).unwrap().into_iter().sum()
/// }
///
/// assert_eq!(total(&SerialPool::new(), vec![1, 2, 3]), 14);
/// ```
pub trait Pool {
    /// Where all calls go: what runs encoded chunks. Who uses a pool does not need it.
    fn executor(&self) -> &Arc<dyn Executor>;

    /// Runs `function` on one argument and waits for the result.
    ///
    /// # Errors
    /// When the task fails.
    fn apply<F, A, R>(&self, function: F, argument: A) -> Result<R, TaskError>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).apply(argument)
    }

    /// Runs `function` on one argument in the background.
    ///
    /// In a pool with a bounded queue (the builders' `max_queued`) it waits until there is room.
    fn apply_async<F, A, R>(&self, function: F, argument: A) -> TaskHandle<R>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).apply_async(argument)
    }

    /// The same without waiting: where the queue is full, the argument comes back.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let handle = pool.try_apply_async(|x: u64| x * x, 12).expect("it has no bound");
    /// assert_eq!(handle.get().unwrap(), 144);
    /// ```
    ///
    /// # Errors
    /// When as many tasks wait as the builders' `max_queued` allows.
    fn try_apply_async<F, A, R>(
        &self,
        function: F,
        argument: A,
    ) -> Result<TaskHandle<R>, QueueFull<A>>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).try_apply_async(argument)
    }

    /// Runs `function` on every item and returns the results in the order of the items.
    ///
    /// # Errors
    /// When an item fails: the error of the one with the lowest index. The others are run all
    /// the same; [`try_map`](Self::try_map) gives each item's own result.
    ///
    /// # Panics
    /// When the iterator panics.
    fn map<F, I, R>(&self, function: F, items: I) -> Result<Vec<R>, TaskError>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).map(items)
    }

    /// Runs `function` on every item and returns each one's own result or error, in order.
    ///
    /// # Panics
    /// When the iterator panics.
    fn try_map<F, I, R>(&self, function: F, items: I) -> Vec<Result<R, TaskError>>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).try_map(items)
    }

    /// Runs `function` once on each of the pool's workers, and returns each one's own result or
    /// error, in the order of the workers' numbers. Each runs it when it has finished what it is
    /// at. To set workers up, take an [initializer](crate::PoolBuilder::initializer), which new
    /// workers run as well; this is to ask them, or to have them drop something.
    ///
    /// A worker that dies under it gives its error. One that dies or is replaced before runs it in
    /// its next one. A pool of the program's own that does not choose its workers gives one error,
    /// of kind [`Invalid`](crate::TaskErrorKind::Invalid).
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let pids = pool.run_on_each(|()| std::process::id(), ());
    /// assert_eq!(pids, [Ok(std::process::id())]);
    /// ```
    fn run_on_each<F, A, R>(&self, function: F, argument: A) -> Vec<Result<R, TaskError>>
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).run_on_each(argument)
    }

    /// Runs `function` on every item in the background. The items are taken from the iterator
    /// and encoded before the call returns.
    fn map_async<F, I, R>(&self, function: F, items: I) -> MapHandle<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).map_async(items)
    }

    /// Runs `function` on every item lazily: an iterator over the results, in the order of the
    /// items, that reads a bounded number of items ahead. The input may be endless.
    ///
    /// The input may also be one that waits, such as standard input or a channel, and may even wait
    /// for results of this call: an item begins when the input has returned it and a worker has
    /// nothing to do, and a result is given when it is ready. For that the input may be read by a
    /// thread of its own; see [`Imap`]. An input that is not `Send`, or borrows, is for
    /// [`imap_local`](Self::imap_local). (The lines of standard input are
    /// `BufReader::new(io::stdin()).lines()`: those of `io::stdin().lines()` hold a lock, which
    /// cannot go to another thread.)
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use std::sync::mpsc;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let (ask, questions) = mpsc::channel();
    /// ask.send(1).unwrap();
    /// let mut answers = Vec::new();
    /// for answer in pool.imap(|x: u64| 3 * x, questions) {
    ///     let answer = answer.unwrap();
    ///     answers.push(answer);
    ///     if answers.len() == 4 {
    ///         break;
    ///     }
    ///     ask.send(answer + 1).unwrap();
    /// }
    /// assert_eq!(answers, [3, 12, 39, 120]);
    /// ```
    fn imap<F, I, R>(&self, function: F, items: I) -> Imap<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        I::IntoIter: Send + 'static,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).imap(items)
    }

    /// The same in the order in which the items finish.
    fn imap_unordered<F, I, R>(&self, function: F, items: I) -> Imap<R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        I::IntoIter: Send + 'static,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).imap_unordered(items)
    }

    /// Like [`imap`](Self::imap) over an input that is not `Send`, or borrows: it is read in the
    /// caller's thread, while that asks for a result. A result that is ready then is given only
    /// when the input has answered; see [`ImapLocal`].
    fn imap_local<F, I, R>(&self, function: F, items: I) -> ImapLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).imap_local(items)
    }

    /// The same in the order in which the items finish.
    fn imap_unordered_local<F, I, R>(&self, function: F, items: I) -> ImapLocal<I::IntoIter, R>
    where
        F: Fn(I::Item) -> R + Stateless,
        I: IntoIterator<Item: Portable>,
        R: Portable,
    {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function).imap_unordered_local(items)
    }

    /// A call with options: `pool.call(f).timeout(d).retries(2).map(items)`.
    fn call<F>(&self, function: F) -> Call<F> {
        const { assert_captures_nothing::<F>() };
        Call::new(self.executor().clone(), function)
    }

    /// Puts a value into memory that all workers share, and gives a handle of it to be passed in
    /// arguments: for large data that many tasks need. See [`Broadcast`].
    ///
    /// Vectors and slices of numbers and strings are read where they lie, without a copy in any
    /// worker; other values are passed by reference, and each worker decodes them once.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Broadcast, Pool, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let words = pool.broadcast("one two three")?;
    /// let find = |(words, word): (Broadcast<str>, String)| words.find(&word);
    /// let found = pool.apply(find, (words.clone(), "two".to_owned()));
    /// assert_eq!(found.unwrap(), Some(4));
    /// # Ok::<(), procpool::BroadcastError>(())
    /// ```
    ///
    /// # Errors
    /// When the value cannot be serialised, or the system is out of memory or descriptors.
    fn broadcast<V: IntoBroadcast>(
        &self,
        value: V,
    ) -> Result<Broadcast<V::Shared>, BroadcastError> {
        Broadcast::new(value)
    }

    /// How many tasks can run at the same time.
    fn processes(&self) -> usize {
        self.executor().processes()
    }

    /// Makes the pool larger or smaller, and does not wait until it is.
    ///
    /// A pool that grows starts workers, in the background. If one of these cannot be started the
    /// pool stays smaller, as [`processes`](Self::processes) then says. A pool that shrinks lets
    /// those workers go that have least to do; each finishes what it runs, and what waits behind
    /// that goes to another one.
    ///
    /// # Errors
    /// When `processes` is zero or beyond all limits, when the pool was closed, or when it is a
    /// pool that cannot be resized, such as [`SerialPool`](crate::SerialPool).
    fn resize(&self, processes: usize) -> Result<(), ResizeError> {
        self.executor().resize(processes)
    }

    /// Takes no more tasks. Those that there are will be finished, and then the workers leave in
    /// good order. Calling it again changes nothing.
    fn close(&self) {
        self.executor().close();
    }

    /// Waits until all tasks have ended, their callbacks have run and all workers are gone, after
    /// [`close`](Self::close) or [`terminate`](Self::terminate).
    ///
    /// A task of a [`stream`](Call::stream) that nobody reads does not keep it waiting: from now on
    /// such tasks run to their end, and what they emit stays in memory until it is read.
    ///
    /// A worker that was killed and does not die (it is being debugged, frozen, or in a system call
    /// that cannot be interrupted) is waited for no longer than three seconds. Dropping a pool
    /// waits for the same. Such a worker is reaped later: when another one is started, by the fork
    /// server, or by the process that inherits it when the program ends.
    ///
    /// # Errors
    /// When the pool is still open, for then the wait might never end; or when it is called
    /// on the thread that the callbacks run on, which would wait for itself.
    fn join(&self) -> Result<(), JoinError> {
        self.executor().join(None).map(|_| ())
    }

    /// The same, but no longer than `timeout`; `false`: something was still running then.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    fn join_timeout(&self, timeout: Duration) -> Result<bool, JoinError> {
        self.executor().join(crate::sys::now().checked_add(timeout))
    }

    /// The same as a future, of any runtime: ready when `join` would have returned. No thread waits
    /// for it. Dropped, it costs nothing, and the pool ends all the same.
    ///
    /// So an async program closes its pool and awaits the end. The drop of the pool has little to
    /// wait for then.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     match std::pin::pin!(future).poll(&mut context) {
    /// #         std::task::Poll::Ready(value) => value,
    /// #         std::task::Poll::Pending => unreachable!("nothing runs"),
    /// #     }
    /// # }
    /// # block_on(async {
    /// let pool = SerialPool::new();
    /// let square = pool.apply_async(|x: u64| x * x, 12).await?;
    /// pool.close();
    /// pool.join_async().await?;
    /// # assert_eq!(square, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// A pool of the program's own that cannot [wake](Executor::watch_end) who waits has a thread
    /// for each such future.
    fn join_async(&self) -> JoinFuture {
        JoinFuture::new(self.executor().clone())
    }

    /// Ends everything now: workers are killed, and every task that has not ended fails as
    /// `Cancelled`.
    fn terminate(&self) {
        self.executor().terminate();
    }

    /// What happened so far.
    fn stats(&self) -> Stats {
        self.executor().stats()
    }

    /// Writes what every worker does from now on into a file, until the returned [`Trace`] is
    /// finished or dropped: each item with its worker, function, index, outcome, waiting, times and
    /// bytes, and the beginnings and ends of workers. Of items that have begun before, it has
    /// nothing.
    ///
    /// The file is for the trace viewers of Chrome (`chrome://tracing`) and Perfetto
    /// (<https://ui.perfetto.dev>), and for the command `procpool timeline`, which draws it. A
    /// thread of its own writes it; what that cannot follow is dropped, counted, and noted in the
    /// file. If the program is killed, what was written can be read.
    ///
    /// While a trace is on, each item is measured, which costs a few microseconds.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Pool, SerialPool};
    ///
    /// let path = std::env::temp_dir().join(format!("trace-{}.json", std::process::id()));
    /// let pool = SerialPool::new();
    /// let trace = pool.trace_to(&path)?;
    /// pool.map(|x: u64| x * x, 0..10).unwrap();
    /// trace.finish()?;
    /// let lines = std::fs::read_to_string(&path)?.lines().count();
    /// assert!(lines > 10);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file cannot be created, or the pool is one that cannot be traced.
    fn trace_to(&self, path: impl AsRef<Path>) -> io::Result<Trace> {
        Trace::start(&**self.executor(), path.as_ref())
    }

    /// Sees what happens in the pool, from now on until the [`Observer`] is dropped: which workers
    /// come and go and why, and with more what they were at, or each item and what it
    /// took. First come the workers that are up. Any number can observe a pool, also while it is
    /// [traced](Self::trace_to).
    ///
    /// This is for monitors and the like: the pool never waits for its observers.
    ///
    /// ```
    /// # use procpool_core as procpool;
    /// use procpool::{Observe, Pool, PoolEvent, SerialPool};
    ///
    /// let pool = SerialPool::new();
    /// let mut observer = pool.observe(Observe::Items)?;
    /// assert!(pool.map(|x: u64| 100 / x, [4, 0]).is_err());
    /// let mut failed = Vec::new();
    /// while let Some(event) = observer.try_recv() {
    ///     if let PoolEvent::ItemEnded { index, error: Some(error), .. } = event {
    ///         failed.push((index, error.kind()));
    ///     }
    /// }
    /// assert_eq!(failed, [(1, procpool::TaskErrorKind::Panicked)]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the pool is one that cannot be observed: a copy of one in a forked process.
    fn observe(&self, what: Observe) -> io::Result<Observer> {
        Observer::new(&**self.executor(), what)
    }

    /// A handle that does not keep the pool alive: for who looks at it while others use it, such as
    /// a monitor in a thread of its own.
    fn downgrade(&self) -> WeakPool {
        WeakPool::new(self.executor())
    }

    /// What every worker is doing right now: its task, since when, what waits behind it, and where
    /// in the program it is. To be printed, when something seems to be stuck.
    ///
    /// A worker that runs a task is asked for its stack by the signal `SIGURG`, which a program
    /// ignores unless it says otherwise. As with any signal, a system call that the task sleeps in
    /// may end early (`EINTR`), which the standard library does not let through. One that does not
    /// answer within a fifth of a second (it has the signal blocked, is stopped, or sits in the
    /// kernel) has no stack, but what the kernel says of it.
    fn dump(&self) -> Dump {
        self.executor().dump()
    }
}

impl<P: Pool + ?Sized> Pool for &P {
    fn executor(&self) -> &Arc<dyn Executor> {
        (**self).executor()
    }
}

impl<P: Pool + ?Sized> Pool for Box<P> {
    fn executor(&self) -> &Arc<dyn Executor> {
        (**self).executor()
    }
}

impl<P: Pool + ?Sized> Pool for Rc<P> {
    fn executor(&self) -> &Arc<dyn Executor> {
        (**self).executor()
    }
}

impl<P: Pool + ?Sized> Pool for Arc<P> {
    fn executor(&self) -> &Arc<dyn Executor> {
        (**self).executor()
    }
}
