//! A lazy map whose input is read by a thread of its own: however long the input keeps that
//! waiting, results are given out when they are there.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
#[cfg(feature = "stream")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::feed::{CallSite, End, Flow, InputFeeder, Pusher, Source, show};
use super::open_chunk::OpenChunk;
use crate::api::handle::{Collector, Pending, ResultCell};
use crate::api::progress::Progress;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::catch_and_discard;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::task::chunk::ChunkOutcome;
use crate::task::executor::{Cancel, Executor};

/// Gives the outcomes of a call whose input is read by a feeder.
///
/// Dropping it cancels what is under way. If the input keeps the feeder waiting just then, the
/// thread ends when the input has answered.
pub(crate) struct Fed {
    executor: Arc<dyn Executor>,
    collector: Arc<Collector>,
    open: Arc<OpenChunk>,
    tap: Arc<Tap>,
    feeder: Feeder,
    /// What the input said of its length before anything was taken.
    hint: (usize, Option<usize>),
    /// Items that the caller has been given.
    given: usize,
    /// The feeder must know of these.
    has_buffer: bool,
    progress: Progress,
    fork_depth: usize,
}

/// The thread that reads the input.
enum Feeder {
    /// It does not run yet: nobody has asked for a result. Makes it, with the input; if the system
    /// refuses that, gives what reads the input without one.
    Ready(Start),
    Running(Arc<Thread>),
    /// The system has refused a thread.
    Refused(Box<dyn Source + Send>),
    Gone,
}

type Start = Box<dyn FnOnce(Progress) -> Result<Arc<Thread>, Box<dyn Source + Send>> + Send>;

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the feeder and the one who takes the results share.
struct Tap {
    state: Mutex<TapState>,
    /// There is room for more, or nobody wants more.
    changed: Condvar,
}

struct TapState {
    flow: Flow,
    /// The feeder sleeps.
    is_asleep: bool,
    /// Nobody wants more.
    is_shut: bool,
    /// No more items will be taken.
    has_ended: bool,
    /// What the input panicked with.
    panic: Option<Box<dyn Any + Send>>,
}

impl Tap {
    fn lock(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, state: &TapState) {
        if state.is_asleep {
            self.changed.notify_one();
        }
    }
}

impl Fed {
    pub(crate) fn new<A, I>(
        executor: Arc<dyn Executor>,
        call: CallSite,
        input: I,
        progress: Progress,
    ) -> Self
    where
        A: Serialize + 'static,
        I: Iterator<Item = A> + Send + 'static,
    {
        let collector = Arc::new(Collector::default());
        collector.keep_open();
        let flow = Flow::new(&call.options, &*executor);
        let has_buffer = call.options.buffer.is_some();
        let hint = input.size_hint();
        let tap = Arc::new(Tap {
            state: Mutex::new(TapState {
                flow,
                is_asleep: false,
                is_shut: false,
                has_ended: false,
                panic: None,
            }),
            changed: Condvar::new(),
        });
        let pusher = Pusher::new(&executor, call, input, collector.clone());
        let open = pusher.open().clone();
        let (their_tap, their_collector) = (tap.clone(), collector.clone());
        let their_executor = Arc::downgrade(&executor);
        let start: Start = Box::new(move |progress| {
            // So that the input is not lost when there can be no thread.
            let input = Arc::new(Mutex::new(Some(pusher)));
            let theirs = input.clone();
            let tap = their_tap.clone();
            let collector = their_collector.clone();
            let shown = progress.clone();
            let thread = Arc::new(Thread {
                is_over: AtomicBool::new(false),
                handle: Mutex::new(None),
            });
            let its = thread.clone();
            let spawned = thread::Builder::new()
                .name("procpool-feeder".into())
                .spawn(move || {
                    let pusher = take(&theirs);
                    if let Some(pusher) = pusher {
                        feed(pusher, &tap, &collector, shown);
                    }
                    its.end();
                });
            if let Ok(handle) = spawned {
                *thread.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
                return Ok(thread);
            }
            Err({
                let pusher = take(&input);
                let flow = their_tap.lock().flow.clone();
                their_collector.close();
                let pusher = pusher.expect("there is no thread to take it");
                let executor = their_executor.upgrade().expect("whoever asks has it");
                let feed = InputFeeder::resume(executor, pusher, flow, progress);
                Box::new(feed) as Box<dyn Source + Send>
            })
        });
        Self {
            fork_depth: crate::process::fork::depth(),
            executor,
            collector,
            open,
            tap,
            feeder: Feeder::Ready(start),
            hint,
            given: 0,
            has_buffer,
            progress,
        }
    }

    fn start(&mut self) {
        if let Feeder::Ready(_) = self.feeder
            && let Feeder::Ready(start) = std::mem::replace(&mut self.feeder, Feeder::Gone)
        {
            self.progress.begin(self.hint);
            self.feeder = match start(self.progress.clone()) {
                Ok(thread) => Feeder::Running(thread),
                Err(source) => Feeder::Refused(source),
            };
        }
    }

    /// The pieces that are there, none of them when all are through; `None`: they must be waited
    /// for.
    fn take(&mut self) -> Option<Vec<Arc<ChunkOutcome>>> {
        let pieces = self.collector.take();
        let mut state = self.tap.lock();
        state.flow.observe(&pieces);
        let is_over = state.has_ended && state.flow.taken == state.flow.back;
        let has_panicked = state.panic.is_some();
        self.tap.wake(&state);
        drop(state);
        show(&self.progress, &pieces);
        if is_over && !has_panicked {
            self.progress.finish();
        }
        (is_over || !pieces.is_empty()).then_some(pieces)
    }

    /// Whether this is the copy in a forked process, which has no such thread.
    fn is_copy(&self) -> bool {
        self.fork_depth != crate::process::fork::depth()
    }
}

impl Source for Fed {
    fn next_pieces(&mut self) -> Vec<Arc<ChunkOutcome>> {
        if self.is_copy() {
            return Vec::new();
        }
        self.start();
        if let Feeder::Refused(source) = &mut self.feeder {
            return source.next_pieces();
        }
        loop {
            if let Some(pieces) = self.take() {
                return pieces;
            }
            let collector = &self.collector;
            self.executor
                .wait_until(&mut |waker| collector.poll_any(waker), None);
        }
    }

    #[cfg(feature = "stream")]
    fn poll_pieces(
        &mut self,
        context: &mut Context<'_>,
        fill: bool,
    ) -> Poll<Vec<Arc<ChunkOutcome>>> {
        if self.is_copy() {
            return Poll::Ready(Vec::new());
        }
        self.start();
        if let Feeder::Refused(source) = &mut self.feeder {
            return source.poll_pieces(context, fill);
        }
        loop {
            if let Some(pieces) = self.take() {
                return Poll::Ready(pieces);
            }
            if !self.collector.poll_any(Some(context.waker())) {
                return Poll::Pending;
            }
        }
    }

    #[cfg(feature = "stream")]
    fn stop_driving(&mut self) {
        self.open.leave_unattended();
        if !matches!(self.feeder, Feeder::Ready(_)) {
            self.executor.detach();
        }
    }

    fn remaining(&self) -> (usize, Option<usize>) {
        if let Feeder::Refused(source) = &self.feeder {
            return source.remaining();
        }
        if self.is_copy() {
            return (0, None);
        }
        let state = self.tap.lock();
        // While the feeder is at a chunk it has not said how many it took of that.
        let taken = state.flow.taken.max(state.flow.back);
        let under_way = taken.saturating_sub(self.given);
        if state.has_ended {
            return (under_way, Some(under_way));
        }
        let (low, high) = self.hint;
        let low = low.saturating_sub(self.given).max(under_way);
        let high = high.map(|high| high.saturating_sub(self.given).max(low));
        (low, high)
    }

    fn give(&mut self, items: usize) {
        self.given += items;
        if let Feeder::Refused(source) = &mut self.feeder {
            source.give(items);
        } else if self.has_buffer && !self.is_copy() {
            let mut state = self.tap.lock();
            state.flow.given = self.given;
            self.tap.wake(&state);
        }
    }

    fn rethrow(&mut self) {
        if let Feeder::Refused(source) = &mut self.feeder {
            return source.rethrow();
        }
        if self.is_copy() {
            return;
        }
        let panic = self.tap.lock().panic.take();
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
    }

    fn error(&mut self) -> Option<TaskError> {
        self.is_copy().then(|| {
            TaskError::new(
                TaskErrorKind::Closed,
                "this process is a fork of the one that reads the input of this call",
            )
        })
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        if self.is_copy() {
            // The parent's thread may hold locks in it, which nobody opens here.
            let feeder = std::mem::replace(&mut self.feeder, Feeder::Gone);
            #[allow(clippy::mem_forget, clippy::disallowed_methods)]
            std::mem::forget((
                feeder,
                self.tap.clone(),
                self.collector.clone(),
                self.open.clone(),
            ));
            return;
        }
        self.progress.abandon();
        let feeder = std::mem::replace(&mut self.feeder, Feeder::Gone);
        if let Feeder::Running(thread) = feeder {
            self.collector.abandon();
            {
                let mut state = self.tap.lock();
                state.is_shut = true;
                self.tap.wake(&state);
            }
            self.open.interrupt();
            self.executor.unwatch_input(&self.open);
            Pending::new(self.collector.clone(), self.executor.clone()).cancel(Cancel::Cooperative);
            leave(thread);
        }
    }
}

/// What a feeder does: takes items while there is room for more.
fn feed<A, I>(mut pusher: Pusher<I>, tap: &Tap, collector: &Collector, mut progress: Progress)
where
    A: Serialize + 'static,
    I: Iterator<Item = A>,
{
    pusher.begin();
    let end = loop {
        let left = pusher.left();
        let limit = {
            let mut state = tap.lock();
            state.flow.taken = pusher.taken();
            loop {
                if state.is_shut {
                    break None;
                }
                if let Some(limit) = state.flow.next(left) {
                    break Some(limit);
                }
                state.is_asleep = true;
                state = tap
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.is_asleep = false;
            }
        };
        let Some(limit) = limit else {
            break End::Unwanted;
        };
        if let Some(end) = pusher.push(limit) {
            break end;
        }
    };
    pusher.finish();
    let taken = pusher.taken();
    if matches!(end, End::Exhausted) {
        progress.end_known(taken);
    }
    // Before anybody hears of the end.
    catch_and_discard(|| drop(pusher));
    {
        let mut state = tap.lock();
        state.flow.taken = taken;
        state.has_ended = true;
        if let End::Panicked(panic) = end {
            state.panic = Some(panic);
        }
    }
    collector.close();
}

/// Feeders that nobody wants anything of any more. They end by themselves; those that their inputs
/// keep waiting, when these have answered.
static LEFT: std::sync::Mutex<Vec<Arc<Thread>>> = std::sync::Mutex::new(Vec::new());
/// One of them has ended.
static ONE_HAS_ENDED: std::sync::Condvar = std::sync::Condvar::new();

fn left() -> std::sync::MutexGuard<'static, Vec<Arc<Thread>>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A feeder's thread.
struct Thread {
    /// It is at its end, and does nothing of anybody's any more.
    is_over: AtomicBool,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    /// Sees to it that it ends, if it is one that nobody wants.
    fn end(&self) {
        // Not the checkers' lock: it is in a static, and nothing that they know of happens under
        // it.
        let _left = left();
        self.is_over.store(true, Ordering::SeqCst);
        ONE_HAS_ENDED.notify_all();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits for the little that is left of it.
    fn join(&self) {
        let handle = self
            .handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // What it panicked with, if it did, was caught and handed on.
        let _ = handle.map(JoinHandle::join);
    }
}

/// Nobody wants anything of this one any more.
fn leave(thread: Arc<Thread>) {
    if crate::sync::IS_MODEL {
        // A list of all threads would go on from one schedule to the next.
        return;
    }
    let mut all = left();
    all.push(thread);
    join_ended(all);
}

/// Joins those that are at their end, and says how many are not.
fn join_ended(mut all: std::sync::MutexGuard<'static, Vec<Arc<Thread>>>) -> usize {
    let (ended, others) = all.drain(..).partition(|thread| thread.is_over());
    *all = others;
    let count = all.len();
    drop(all);
    let ended: Vec<Arc<Thread>> = ended;
    for thread in ended {
        thread.join();
    }
    count
}

/// Waits until the feeders of lazy maps that were dropped are gone, but no longer than `timeout`:
/// one whose input keeps it waiting stays. For backends that fork, which must be alone in the
/// process.
pub fn wait_for_feeders(timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while join_ended(left()) > 0 {
        let all = left();
        let time = deadline.saturating_duration_since(Instant::now());
        if time.is_zero() {
            return;
        }
        if !all.iter().any(|thread| thread.is_over()) {
            let waited = ONE_HAS_ENDED.wait_timeout(all, time);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}
