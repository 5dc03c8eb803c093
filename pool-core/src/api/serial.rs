//! A pool that is none: it runs every task in the caller.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, ThreadId};
use std::time::Instant;

use super::pool::Pool;
use crate::error::build_error::JoinError;
use crate::error::task_error::TaskError;
use crate::observe::stats::Stats;
use crate::observe::tracer::Tracer;
use crate::panic::catch::catch_and_discard;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::emissions::Emissions;
use crate::task::end_watch::EndWatch;
use crate::task::executor::{Cancel, Executor};
use crate::task::item_counts::ItemCounts;
use crate::task::open_input::OpenInput;
use crate::task::parking::park_until;
use crate::worker::cancel_flag::{CancelFlag, with_flag};
use crate::worker::state::Scope;

/// Runs every task at once, in the thread that calls: the oracle for tests, and the way to step
/// through a task with a debugger.
///
/// It is faithful where it can be: arguments and results go through the same encoding, and a
/// panic is the same error. It has no process of its own, though: a task that crashes takes the
/// program with it, and a timeout cannot be kept. An item of an `imap` runs when its result is
/// asked for, and the result is given before the input is asked for another item. A task of
/// [`stream`](crate::Call::stream) runs in a thread of its own, beside its reader.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// assert_eq!(pool.map(|x: u64| x + 1, [1, 2, 3]).unwrap(), [2, 3, 4]);
/// ```
#[derive(Clone)]
pub struct SerialPool {
    executor: Arc<dyn Executor>,
}

impl SerialPool {
    /// A pool of the calling thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            executor: Arc::new(Serial {
                scope: Scope::new(),
                is_closed: AtomicBool::new(false),
                counts: Arc::default(),
                tracer: Tracer::default(),
            }),
        }
    }
}

impl Default for SerialPool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool for SerialPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl std::fmt::Debug for SerialPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPool").finish_non_exhaustive()
    }
}

struct Serial {
    /// Its states are not those of other pools in the same thread.
    scope: Scope,
    is_closed: AtomicBool,
    counts: Arc<Counts>,
    tracer: Tracer,
}

/// What its threads know, too.
#[derive(Default)]
struct Counts {
    items: ItemCounts,
    /// What is tried again, each in the thread that has run it.
    again: Mutex<Vec<(ThreadId, Chunk)>>,
    /// The tasks that emit values and have not ended.
    streams: Mutex<Vec<Running>>,
    /// Notified when one of them has.
    ended: Condvar,
    /// Woken then.
    end_watch: EndWatch,
}

/// A task in a thread of its own.
struct Running {
    sink: Arc<dyn CompletionSink>,
    emissions: Arc<Emissions>,
    flag: CancelFlag,
}

impl Counts {
    fn streams(&self) -> MutexGuard<'_, Vec<Running>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn again(&self) -> MutexGuard<'_, Vec<(ThreadId, Chunk)>> {
        self.again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what this thread is to try again next of a call. (A task may make calls, too.)
    fn take_again(&self, call: CallId) -> Option<Chunk> {
        let here = thread::current().id();
        let mut again = self.again();
        let is_next = |(thread, chunk): &(ThreadId, Chunk)| *thread == here && chunk.call() == call;
        let at = again.iter().position(is_next)?;
        Some(again.remove(at).1)
    }

    /// Runs a chunk, and then what is tried again of it: one attempt is not inside of another.
    fn run(&self, chunk: Chunk) {
        let may_come_back = chunk.may_be_retried();
        let call = chunk.call();
        let mut next = Some(chunk);
        while let Some(chunk) = next {
            chunk.run_here();
            next = if may_come_back {
                self.take_again(call)
            } else {
                None
            };
        }
    }

    /// A task that emits values has ended.
    fn stream_ended(&self, emissions: &Arc<Emissions>) {
        let mut streams = self.streams();
        streams.retain(|it| !Arc::ptr_eq(&it.emissions, emissions));
        self.ended.notify_all();
        drop(streams);
        self.end_watch.wake();
    }
}

impl Serial {
    /// Runs a task that emits values, which may have to wait for their reader.
    fn start_stream(&self, chunk: Chunk, emissions: Arc<Emissions>, sink: Arc<dyn CompletionSink>) {
        let (counts, scope, flag) = (self.counts.clone(), self.scope, CancelFlag::new());
        let running = Running {
            sink,
            emissions: emissions.clone(),
            flag: flag.clone(),
        };
        self.counts.streams().push(running);
        let kept = emissions.clone();
        let run = move || {
            with_flag(&flag, || scope.run(|| counts.run(chunk)));
            counts.stream_ended(&kept);
        };
        if let Err(error) = thread::Builder::new().spawn(run) {
            // The chunk was dropped, and has failed by that.
            self.counts.stream_ended(&emissions);
            drop(error);
        }
    }
}

/// What its tasks keep in other threads goes when these end.
impl Drop for Serial {
    fn drop(&mut self) {
        self.scope.drop_states();
    }
}

impl Executor for Serial {
    fn submit(&self, mut chunk: Chunk) {
        chunk.trace(&self.tracer);
        chunk.count_in(&self.counts.items);
        if self.is_closed.load(Ordering::Acquire) {
            chunk.finish(&TaskError::closed());
        } else if let Some((emissions, sink)) = chunk.emissions().zip(chunk.sink()) {
            let (emissions, sink) = (emissions.clone(), sink.clone());
            self.start_stream(chunk, emissions, sink);
        } else {
            self.scope.run(|| self.counts.run(chunk));
        }
    }

    fn resubmit(&self, chunk: Chunk) {
        self.counts.again().push((thread::current().id(), chunk));
    }

    fn wait_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        // Whatever was submitted has ended, but for what has a thread of its own.
        park_until(poll, deadline)
    }

    /// There is no worker that could take anything while the caller is elsewhere.
    fn watch_input(&self, _open: Arc<dyn OpenInput>) -> bool {
        true
    }

    fn has_idle_worker(&self, _look_again: bool) -> bool {
        false
    }

    fn chooses_workers(&self) -> bool {
        true
    }

    fn runs_in_caller(&self) -> bool {
        true
    }

    fn cancel(&self, call: CallId, _how: Cancel) -> bool {
        let streams = self.counts.streams();
        let running = streams.iter().find(|it| it.sink.call() == call);
        if let Some(running) = running {
            running.flag.set();
        }
        running.is_some()
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        catch_and_discard(job);
    }

    fn processes(&self) -> usize {
        1
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn terminate(&self) {
        self.close();
        let streams = self.counts.streams();
        let ended: Vec<Arc<dyn CompletionSink>> = streams
            .iter()
            .map(|it| {
                it.flag.set();
                it.sink.clone()
            })
            .collect();
        drop(streams);
        for sink in ended {
            // Nothing ends a thread, but nobody waits for it.
            sink.complete(ChunkOutcome::failed(0, 1, TaskError::terminated()));
        }
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if !self.is_closed.load(Ordering::Acquire) {
            return Err(JoinError::not_closed());
        }
        let mut streams = self.counts.streams();
        for running in &*streams {
            // Its reader may be this thread.
            running.emissions.lift_bound();
        }
        while !streams.is_empty() {
            streams = match deadline.map(|it| it.saturating_duration_since(Instant::now())) {
                None => self.counts.ended.wait(streams),
                Some(left) if left.is_zero() => return Ok(false),
                Some(left) => {
                    let waited = self.counts.ended.wait_timeout(streams, left);
                    waited
                        .map(|it| it.0)
                        .map_err(|it| PoisonError::new(it.into_inner().0))
                }
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(true)
    }

    fn watch_end(&self, waker: &Waker) -> bool {
        self.counts.end_watch.add(waker);
        true
    }

    fn unwatch_end(&self, waker: &Waker) {
        self.counts.end_watch.remove(waker);
    }

    fn tracer(&self) -> io::Result<&Tracer> {
        Ok(&self.tracer)
    }

    fn stats(&self) -> Stats {
        self.counts.items.stats(0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn an_item_that_is_tried_again_counts_once() {
        let pool = SerialPool::new();
        let returns = |x: u64| -> Result<u64, u64> { Err(x) };
        let call = pool.call(returns).retries(2).count_errors();
        let outcomes = call.retry_errors(|x| x % 2 == 0).chunksize(3).map(0..7);
        assert_eq!(outcomes, Ok(Vec::from_iter((0..7).map(Err))));
        let stats = pool.stats();
        assert_eq!(
            (stats.submitted, stats.failed, stats.errors_returned),
            (7, 7, 7)
        );
    }

    /// A task that makes calls itself does not run another item of its own call meanwhile.
    #[test]
    fn an_attempt_is_in_no_other_one_of_its_call() {
        static POOL: LazyLock<SerialPool> = LazyLock::new(SerialPool::new);
        static RUNNING: Mutex<()> = Mutex::new(());
        fn inner(x: u64) -> Result<u64, u64> {
            Err(x)
        }
        fn outer(x: u64) -> Result<u64, u64> {
            let _running = RUNNING.try_lock().expect("one at a time");
            let call = POOL.call(inner).retries(2).retry_errors(|_| true);
            call.apply(x).expect("an outcome")
        }
        let call = POOL.call(outer).retries(2).retry_errors(|_| true);
        assert_eq!(
            call.chunksize(3).map(0..3),
            Ok(Vec::from_iter((0..3).map(Err)))
        );
    }

    /// An item runs when its result is asked for, and no other is taken before that was given.
    #[test]
    fn one_item_is_taken_for_each_result() {
        let pool = SerialPool::new();
        let taken = Cell::new(0);
        let input = || (0..10_u64).inspect(|_| taken.set(taken.get() + 1));
        for chunk in [1, 4] {
            taken.set(0);
            let call = pool.call(|x: u64| x + 1).chunksize(chunk);
            let mut results = call.imap_local(input());
            for x in 0..10 {
                assert_eq!(results.next(), Some(Ok(x + 1)));
                assert_eq!(taken.get(), x + 1);
            }
            assert_eq!(results.next(), None);
        }
    }
}
