//! What a pool is underneath: the seam that the typed methods of [`Pool`](crate::Pool) stand on.

use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::call_id::CallId;
use super::chunk::Chunk;
use super::chunking::Chunking;
use super::open_input::OpenInput;
use super::parking::park_until;
use crate::error::build_error::{JoinError, ResizeError};
use crate::observe::call_span::Origin;
use crate::observe::dump::{Dump, WorkerDump};
use crate::observe::stats::Stats;
use crate::observe::tracer::Tracer;
use crate::worker::function::FunctionId;

/// Runs encoded calls. An object-safe trait, since handles keep their pool's executor without
/// knowing its type.
///
/// # Contract
/// - Every item of every submitted chunk gets exactly one outcome, an error included, whatever
///   happens to workers and pool; after `terminate` that is prompt.
/// - `submit` does not wait for a task. After `close` and after `terminate` it finishes the chunk
///   with an error of kind [`Closed`](crate::TaskErrorKind::Closed).
/// - Every wait ends: `wait_until` and `join` end at their deadline, and without one when the
///   tasks that they wait for have ended.
/// - All methods can be called from any thread, also from inside a completion callback.
///
/// # A pool elsewhere
/// A pool whose workers are in other processes or on other machines takes each chunk
/// [apart](Chunk::into_parts). An [`EncodedChunk`](crate::EncodedChunk) goes there as bytes, where
/// the same executable [runs](crate::EncodedChunk::run) it, perhaps in [a
/// pool](crate::EncodedChunk::submit_to) of its own, and sends each
/// [`Outcome`](crate::Outcome) back. A [`Completion`](crate::Completion) stays here and takes them.
///
/// - **One outcome for each item**: a `Completion` refuses a second one. What has none when it is
///   dropped fails as `WorkerLost`.
/// - **Functions** have a number. It means the same under an equal [`build_id`](crate::build_id),
///   and is checked where it arrives.
/// - **Timeouts, delays and retries** are in [`options`](crate::EncodedChunk::options), for the
///   pool to keep. It sends [the part](crate::EncodedChunk::part) again that is
///   [pending](crate::Completion::pending). A local pool on the other side keeps both for its own
///   workers. A pool that counts all attempts itself leaves that one
///   [none](crate::EncodedChunk::with_retries), and tries again what
///   [is retried](crate::TaskErrorKind::is_retried).
/// - **A cancelled call** is named by a [`CallId`], which is never used again. The other side has a
///   [`CancelFlag`](crate::CancelFlag) and [`Submitted::cancel`](crate::Submitted::cancel).
/// - **Broadcast values** are [named](crate::EncodedChunk::missing) by their content, so that each
///   goes to a machine once, and [provided](crate::EncodedChunk::provide) there. Those in results
///   go the same way.
/// - **Values of a task that still runs** ([`emits`](crate::ChunkOptions::emits)): the other side
///   runs such a chunk by [`stream_to`](crate::EncodedChunk::stream_to), and sends
///   [each](crate::Submitted::poll_value) when there is [room](crate::Completion::poll_room) for it
///   [here](crate::Completion::emit); the outcome is delivered behind them. Each side has a buffer.
///   A pool that does not see to this refuses the call: `run` and `submit_to` give an error.
/// - **A lost machine** is an error: [`TaskError::other`](crate::TaskError::other) with
///   [`with_machine`](crate::TaskError::with_machine).
/// - **The sizes of chunks** follow [`chunking`](Self::chunking), by how long items
///   [took](crate::Outcome::took).
/// - **Metrics and traces** come with the outcomes: see [`Chunk::trace`]. Items are counted by
///   [`ItemCounts`](crate::ItemCounts).
///
/// Of what arrives nothing is believed, on either side. But a chunk says which function of the
/// program runs, on what: a pool sees to it that only those send any who may do that.
///
/// Here the other side is a thread, which has nothing of the pool but bytes. `tests/conformance`
/// has a pool over pipes, with workers that may die.
///
/// ```
/// # use procpool_core as procpool;
/// # mod executor { pub use procpool_core::*; }
/// # /*
/// use procpool::executor;
/// # */
/// use executor::{Callbacks, CallId, Cancel, CancelFlag, Chunk, EncodedChunk, Executor};
/// use executor::{ItemCounts, Outcome};
/// use procpool::{JoinError, Pool, Stats, TaskError, TaskErrorKind};
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering::SeqCst}, mpsc};
/// use std::time::Instant;
///
/// /// The other side.
/// fn serve(chunk: &[u8], answer: &mpsc::Sender<(usize, Vec<u8>)>) {
///     let chunk = EncodedChunk::from_bytes(chunk).expect("the pool sends chunks");
///     chunk.run(&CancelFlag::new(), |index, outcome| {
///         let _ = answer.send((index, outcome.to_bytes()));
///     });
/// }
///
/// #[derive(Default)]
/// struct Elsewhere {
///     is_closed: AtomicBool,
///     callbacks: Callbacks,
///     counts: ItemCounts,
/// }
///
/// impl Executor for Elsewhere {
///     fn submit(&self, mut chunk: Chunk) {
///         chunk.count_in(&self.counts);
///         if self.is_closed.load(SeqCst) {
///             return chunk.finish(&TaskError::other(TaskErrorKind::Closed, "it is closed"));
///         }
///         let (chunk, completion) = chunk.into_parts();
///         let chunk = chunk.to_bytes();
///         let (answer, answers) = mpsc::channel();
///         std::thread::spawn(move || serve(&chunk, &answer));
///         std::thread::spawn(move || {
///             for (index, outcome) in answers {
///                 let outcome = Outcome::from_bytes(&outcome).unwrap_or_else(Into::into);
///                 if let Err(refused) = completion.complete(index, outcome) {
///                     eprintln!("the other side is wrong: {refused}");
///                 }
///             }
///             // Dropped, the completion fails what has no outcome.
///         });
///     }
/// #   fn cancel(&self, _: CallId, _: Cancel) -> bool { false }
/// #   fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) { self.callbacks.run(job) }
/// #   fn processes(&self) -> usize { 1 }
/// #   fn close(&self) { self.is_closed.store(true, SeqCst) }
/// #   fn terminate(&self) { self.close() }
/// #   fn join(&self, _: Option<Instant>) -> Result<bool, JoinError> { Ok(true) }
///     fn stats(&self) -> Stats {
///         self.counts.stats(0)
///     }
///     // and so on
/// }
///
/// struct MyPool(Arc<dyn Executor>);
///
/// impl Pool for MyPool {
///     fn executor(&self) -> &Arc<dyn Executor> {
///         &self.0
///     }
/// }
///
/// let pool = MyPool(Arc::new(Elsewhere::default()));
/// assert_eq!(pool.map(|x: u64| x * x, 0..5).unwrap(), [0, 1, 4, 9, 16]);
/// assert!(pool.apply(|x: u64| 1 / x, 0).unwrap_err().is_panic());
/// assert_eq!((pool.stats().succeeded, pool.stats().failed), (5, 1));
/// ```
pub trait Executor: Send + Sync {
    /// Takes a chunk, to be run as soon as there is a worker for it.
    fn submit(&self, chunk: Chunk);

    /// Takes a chunk that was [submitted](Self::submit) and whose item is tried again: see
    /// [`Call::retry_if`](crate::Call::retry_if). It may come with a
    /// [delay](crate::ChunkOptions::delay), and after `close`, which does not count it as a new
    /// one. It comes from the thread that has delivered the failure, in the midst of that.
    ///
    /// Without a method of its own it is submitted as others are: right for a pool that hands it to
    /// another one. A pool that is closed meanwhile fails it as closed.
    fn resubmit(&self, chunk: Chunk) {
        self.submit(chunk);
    }

    /// Whether there is room for one more task in the queue. Asked to `wait`, it waits until there
    /// is, or the pool is closed or terminated. `true` is right for a queue without a bound.
    fn has_room(&self, _wait: bool) -> bool {
        true
    }

    /// Lends the calling thread to the pool until `poll` answers `true` or the deadline is over,
    /// and says which. Given a waker, `poll` sees to it that it is woken when the answer may have
    /// changed, as a future does; without one it just answers.
    ///
    /// Without a method of its own it sleeps: right for an executor whose work others do.
    fn wait_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        park_until(poll, deadline)
    }

    /// A thread that was going to [`wait_until`](Self::wait_until) its outcomes are there now waits
    /// for its waker instead, as a future does: the pool must look for them without it. To do
    /// nothing is right for a pool that always does.
    fn detach(&self) {}

    /// Whether this process is a fork of the one that this executor belongs to. Then nothing that
    /// was submitted ever ends here, and every call on a handle is answered with an error at once,
    /// without asking for what another thread may have held at the moment of the fork. `false` is
    /// right for an executor that does not mind being copied.
    fn is_foreign(&self) -> bool {
        false
    }

    /// The calling thread is about to read an input that may keep it waiting, and collects items in
    /// this chunk: whenever a worker has nothing to do, the executor takes out what is there and
    /// submits it, until [`unwatch_input`](Self::unwatch_input). `false`: it does not, so that
    /// every item must be submitted alone.
    fn watch_input(&self, _open: Arc<dyn OpenInput>) -> bool {
        false
    }

    /// The input of this chunk does not keep anybody waiting any more.
    fn unwatch_input(&self, _open: &dyn OpenInput) {}

    /// Whether a worker has nothing to do, and nothing waits in the queue for it. If so, and it is
    /// asked to `look_again`, the executor looks into the open chunks half a millisecond later.
    fn has_idle_worker(&self, _look_again: bool) -> bool {
        true
    }

    /// Whether `submit` runs the chunk, in the thread that calls.
    fn runs_in_caller(&self) -> bool {
        false
    }

    /// Whether a chunk that is for a certain worker runs there: that of [`Call::on_worker`] or
    /// [`Pool::run_on_each`]. The first runs anywhere then, and the second is an error.
    ///
    /// [`Call::on_worker`]: crate::Call::on_worker
    /// [`Pool::run_on_each`]: crate::Pool::run_on_each
    fn chooses_workers(&self) -> bool {
        false
    }

    /// The span that the calling thread is in, or one of a call of this name and function in it,
    /// if events of tasks should belong to it; without this they do only where they run in that
    /// thread.
    #[doc(hidden)]
    fn call_span(&self, _function: FunctionId, _name: Option<&str>) -> Option<Arc<Origin>> {
        None
    }

    /// Ends a call early: what has not begun is not run, and what runs is asked to stop or killed.
    /// Says whether any of it runs.
    ///
    /// The call is [abandoned](Chunk::is_abandoned) before. Chunks of it that wait are finished
    /// now; that of a [single task](CallId::is_single) may also be left where it waits, and be
    /// finished when its turn comes.
    fn cancel(&self, call: CallId, how: Cancel) -> bool;

    /// Runs user code, such as a completion callback, where it can do no harm: on a thread that
    /// nobody waits for but [`join`](Self::join). [`Callbacks`](crate::Callbacks) are such a
    /// thread.
    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>);

    /// How many tasks can run at the same time, as of now: a call that goes on asks again, so that
    /// it has work for workers that have joined.
    fn processes(&self) -> usize;

    /// How large chunks should be, where the caller does not say it. Asked again as a call goes on.
    fn chunking(&self) -> Chunking {
        Chunking::default()
    }

    /// Makes the pool larger or smaller; see [`Pool::resize`](crate::Pool::resize).
    ///
    /// # Errors
    /// When the pool cannot be of that size; without a method of its own, of any other size than
    /// it is.
    fn resize(&self, processes: usize) -> Result<(), ResizeError> {
        if processes == self.processes() {
            Ok(())
        } else {
            Err(ResizeError::fixed())
        }
    }

    /// Takes no more tasks; those that there are will be finished, and then the workers retire.
    fn close(&self);

    /// Ends everything now: running tasks are killed, and every task that has no outcome yet
    /// fails as [`Cancelled`](crate::TaskErrorKind::Cancelled).
    fn terminate(&self);

    /// Waits until everything has ended after `close` or `terminate`: tasks, callbacks, workers.
    /// `false`: it had not by the deadline.
    ///
    /// # Errors
    /// When the pool is still open, or the calling thread is one that would have to end.
    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError>;

    /// Sees to it that this waker is woken, once, when [`join`](Self::join) may have another answer
    /// than before: see [`Pool::join_async`](crate::Pool::join_async). It is asked for that after
    /// this, with a deadline that has passed. `false`: it cannot, so that a thread joins for who
    /// waits.
    fn watch_end(&self, _waker: &Waker) -> bool {
        false
    }

    /// Forgets this waker.
    fn unwatch_end(&self, _waker: &Waker) {}

    /// What every worker is doing right now; of none, where there are no workers.
    fn dump(&self) -> Dump {
        Dump::default()
    }

    /// The same of each worker, as far as is known without asking it: no stacks, and not what the
    /// kernel says. It may be asked several times a second. A pool of many machines asks these, and
    /// so takes the time of an answer.
    fn activity(&self) -> Vec<WorkerDump> {
        Vec::new()
    }

    /// Where it reports what happens.
    ///
    /// # Errors
    /// When nobody can observe it.
    fn tracer(&self) -> io::Result<&Tracer> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this pool cannot be traced",
        ))
    }

    /// What happened so far. [`ItemCounts`](crate::ItemCounts) does what is to be said
    /// of items.
    fn stats(&self) -> Stats;
}

/// How a running task is ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It is asked: [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to it.
    Cooperative,
    /// Its worker is killed.
    Kill,
}
