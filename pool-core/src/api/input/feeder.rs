//! A lazy map whose input is read by a thread of its own: however long the input keeps that
//! waiting, results are given out when they are there.

use std::any::{Any, TypeId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
#[cfg(feature = "stream")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::call_site::CallSite;
use super::feed::{End, InputFeeder, Pusher, Source, show};
use super::flow::Flow;
use super::open_chunk::OpenChunk;
use crate::api::handle::{Collector, Pending, ResultCell};
use crate::api::progress::Progress;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::{catch_and_discard, drop_quietly};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys;
use crate::task::chunk_outcome::ChunkOutcome;
use crate::task::encode::Limit;
use crate::task::executor::{Cancel, Executor};
use crate::task::grain::Grain;
use crate::task::open_input::OpenInput;

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
    /// Until when this thread reads the input, one item at a time.
    here_until: Option<Instant>,
    /// What the input said of its length before anything was taken.
    hint: (usize, Option<usize>),
    /// Items that the caller has been given.
    given: usize,
    /// The feeder must know of these.
    has_buffer: bool,
    progress: Progress,
    /// How what is under way ends with it.
    end: Cancel,
    fork_depth: usize,
}

/// What reads the input.
enum Feeder {
    /// The thread that asks for a result, one item at a time, until the feeder does: see
    /// [`Tap::start`].
    Here,
    /// A thread.
    Running(Arc<Thread>),
    /// The thread that asks for a result, many items at a time: the input never waits, or the
    /// system has refused a thread.
    Local(Box<dyn Source + Send>),
    /// It has ended, or this is the end.
    Gone,
}

/// An input that no thread reads yet.
trait Reader: Send {
    /// Whether the input never waits for anything.
    fn never_waits(&self) -> bool;

    /// How many more items there are, if that is known.
    fn left(&self) -> Option<usize>;

    /// Takes an item and hands it to the pool. Says how many were taken by now.
    fn push(&mut self, limit: Limit) -> (Option<End>, usize);

    /// The input may be read by some thread from now on, or is not any more.
    fn watch(&mut self, watch: bool);

    /// Has a thread read it. If the system refuses that, gives it back.
    fn start(
        self: Box<Self>,
        tap: &Arc<Tap>,
        progress: Progress,
    ) -> Result<Arc<Thread>, Box<dyn Reader>>;

    /// Lets the caller read it from now on.
    fn into_local(self: Box<Self>, tap: &Tap, progress: Progress) -> Feeder;
}

struct InputReader<I: Iterator> {
    pusher: Pusher<I>,
    executor: Weak<dyn Executor>,
    collector: Arc<Collector>,
}

impl<A, I> Reader for InputReader<I>
where
    A: Serialize + 'static,
    I: Iterator<Item = A> + Send + 'static,
{
    fn never_waits(&self) -> bool {
        never_waits::<I>()
    }

    fn left(&self) -> Option<usize> {
        self.pusher.left()
    }

    fn push(&mut self, limit: Limit) -> (Option<End>, usize) {
        let end = self.pusher.push(limit);
        (end, self.pusher.taken())
    }

    fn watch(&mut self, watch: bool) {
        if watch {
            self.pusher.begin();
        } else {
            self.pusher.finish();
        }
    }

    fn start(
        self: Box<Self>,
        tap: &Arc<Tap>,
        progress: Progress,
    ) -> Result<Arc<Thread>, Box<dyn Reader>> {
        let collector = self.collector.clone();
        // So that the input is not lost when there can be no thread.
        let reader = Arc::new(Mutex::new(Some(self)));
        let theirs = reader.clone();
        let tap = tap.clone();
        let thread = Arc::new(Thread {
            is_over: AtomicBool::new(false),
            handle: Mutex::new(None),
        });
        let its = thread.clone();
        let spawned = thread::Builder::new()
            .name("procpool-feeder".into())
            .spawn(move || {
                let reader = take(&theirs);
                if let Some(reader) = reader {
                    feed(reader.pusher, &tap, &collector, progress);
                }
                its.end();
            });
        match spawned {
            Ok(handle) => {
                *thread.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
                Ok(thread)
            }
            Err(_) => Err(take(&reader).expect("there is no thread to take it")),
        }
    }

    fn into_local(self: Box<Self>, tap: &Tap, progress: Progress) -> Feeder {
        let mut flow = tap.lock().flow.clone();
        flow.given = flow.back;
        self.collector.close();
        let executor = self.executor.upgrade().expect("the caller has it");
        let feed = InputFeeder::resume(executor, self.pusher, flow, progress);
        Feeder::Local(Box::new(feed.eager(never_waits::<I>())))
    }
}

/// How many items a thread that asks for results takes, one after the other, at most: a short call
/// needs no thread then, whose start costs as much as dozens of small items.
const MAX_HERE: usize = 32;
/// For so long at most.
const TIME_HERE: Duration = Duration::from_micros(50);
/// And only if the result of each is there so soon: otherwise the other workers should have
/// something to do as well.
const PATIENCE: Duration = Duration::from_micros(20);

/// Whether this input is known to give all it has without waiting for anything.
fn never_waits<I: Iterator + 'static>() -> bool {
    use std::collections::{hash_set, vec_deque};
    use std::ops::{Range, RangeFrom, RangeInclusive};

    fn is<I: 'static, T: 'static>() -> bool {
        TypeId::of::<I>() == TypeId::of::<T>()
    }
    macro_rules! ranges {
        ($($number:ty)*) => {
            $(is::<I, Range<$number>>()
                || is::<I, RangeInclusive<$number>>()
                || is::<I, RangeFrom<$number>>())||*
        };
    }
    macro_rules! arrays {
        ($($len:literal)*) => {
            $(is::<I, std::array::IntoIter<I::Item, $len>>())||*
        };
    }
    is::<I, std::vec::IntoIter<I::Item>>()
        || is::<I, vec_deque::IntoIter<I::Item>>()
        || is::<I, hash_set::IntoIter<I::Item>>()
        || is::<I, std::option::IntoIter<I::Item>>()
        || ranges!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize)
        || arrays!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the feeder and the one who takes the results share.
struct Tap {
    state: Mutex<TapState>,
    unread: Mutex<Unread>,
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

/// An input that no thread reads, or the thread that does.
struct Unread {
    /// `None` also while an item is taken from it.
    reader: Option<Box<dyn Reader>>,
    thread: Option<Arc<Thread>>,
    progress: Progress,
}

impl Tap {
    /// Has a thread read the input, unless one does, or somebody else is at it. If the system
    /// refuses one, nothing changes.
    fn start(self: &Arc<Self>) {
        let mut unread = self.unread();
        if let Some(reader) = unread.reader.take() {
            match reader.start(self, unread.progress.clone()) {
                Ok(thread) => unread.thread = Some(thread),
                Err(reader) => unread.reader = Some(reader),
            }
        }
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, TapState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more items will be taken.
    fn end(&self, end: End, taken: usize) {
        let mut state = self.lock();
        state.flow.taken = taken;
        state.has_ended = true;
        let unwanted = match end {
            End::Panicked(panic) if state.is_shut => Some(panic),
            End::Panicked(panic) => state.panic.replace(panic),
            End::Exhausted | End::Unwanted => None,
        };
        drop(state);
        unwanted.into_iter().for_each(drop_quietly);
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
        collector.announce(&*executor, call.name(), hint);
        let tap = Arc::new(Tap {
            state: Mutex::new(TapState {
                flow,
                is_asleep: false,
                is_shut: false,
                has_ended: false,
                panic: None,
            }),
            unread: Mutex::new(Unread {
                reader: None,
                thread: None,
                progress: progress.clone(),
            }),
            changed: Condvar::new(),
        });
        let pusher = Pusher::new(&executor, call, input, collector.clone());
        let open = pusher.open().clone();
        let reader = InputReader {
            pusher,
            executor: Arc::downgrade(&executor),
            collector: collector.clone(),
        };
        tap.unread().reader = Some(Box::new(reader));
        // The user of a result may not come for the next one before long: meanwhile the
        // workers should have something to do.
        let starts = Arc::downgrade(&tap);
        open.on_ask(move || {
            if let Some(tap) = starts.upgrade() {
                tap.start();
            }
        });
        Self {
            fork_depth: crate::process::fork::depth(),
            executor,
            collector,
            open,
            tap,
            feeder: Feeder::Here,
            here_until: None,
            hint,
            given: 0,
            has_buffer,
            progress,
            end: Cancel::Cooperative,
        }
    }

    /// Has a thread read the input, if nobody does yet, or else this one.
    fn start(&mut self) {
        if !matches!(self.feeder, Feeder::Here) {
            return;
        }
        self.begin_progress();
        self.tap.start();
        let (thread, reader) = {
            let mut unread = self.tap.unread();
            (unread.thread.take(), unread.reader.take())
        };
        self.feeder = match (thread, reader) {
            (Some(thread), _) => Feeder::Running(thread),
            (None, Some(reader)) => reader.into_local(&self.tap, self.progress.clone()),
            (None, None) => Feeder::Gone,
        };
    }

    /// Shows that the call has begun, and sees to it that a thread which begins later knows that.
    fn begin_progress(&mut self) {
        self.progress.begin(self.hint);
        self.tap.unread().progress = self.progress.clone();
    }

    /// Takes an item in this thread, waits a little for its result, and gives that. All results of
    /// earlier items were given, so that however long the input waits, nothing is kept back.
    /// `None`: from now on, somebody else does, or there are no more items.
    fn take_here(&mut self) -> Option<Vec<Arc<ChunkOutcome>>> {
        let Some(mut reader) = self.tap.unread().reader.take() else {
            // A thread does already.
            self.start();
            return None;
        };
        let before = sys::now();
        let limit = if reader.never_waits() {
            None
        } else {
            let is_first = self.here_until.is_none();
            let until = *self.here_until.get_or_insert(before + TIME_HERE);
            if is_first {
                self.begin_progress();
                reader.watch(true);
            }
            let state = self.tap.lock();
            let is_soon = before < until && state.flow.taken < MAX_HERE;
            let limit = state.flow.next(reader.left()).filter(|_| is_soon);
            limit.filter(|_| state.flow.taken == state.flow.back)
        };
        let Some(limit) = limit else {
            if reader.never_waits() {
                self.feeder = reader.into_local(&self.tap, self.progress.clone());
            } else {
                self.tap.unread().reader = Some(reader);
                self.start();
            }
            return None;
        };
        let (end, taken) = reader.push(Limit { items: 1, ..limit });
        self.tap.lock().flow.taken = taken;
        if let Some(end) = end {
            reader.watch(false);
            if matches!(end, End::Exhausted) {
                self.progress.end_known(taken);
                self.collector.end_known(taken);
            }
            self.feeder = Feeder::Gone;
            catch_and_discard(|| drop(reader));
            self.tap.end(end, taken);
            self.collector.close();
            return None;
        }
        self.tap.unread().reader = Some(reader);
        let after = sys::now();
        // The time for which the input waits is not ours.
        self.here_until = self.here_until.map(|until| until + (after - before));
        let collector = &self.collector;
        let is_there = self.executor.wait_until(
            &mut |waker| collector.poll_any(waker),
            Some(after + PATIENCE),
        );
        if is_there {
            return self.take();
        }
        self.start();
        None
    }

    /// The outcomes that are there, none of them when all are done; `None`: they must be waited
    /// for.
    fn take(&mut self) -> Option<Vec<Arc<ChunkOutcome>>> {
        let parts = self.collector.take_arrived();
        let grain = Grain::of(&*self.executor);
        let mut state = self.tap.lock();
        state.flow.observe(&parts, grain);
        let is_over = state.has_ended && state.flow.taken == state.flow.back;
        let has_panicked = state.panic.is_some();
        self.tap.wake(&state);
        drop(state);
        show(&self.progress, &parts);
        if is_over && !has_panicked {
            self.progress.finish();
        }
        (is_over || !parts.is_empty()).then_some(parts)
    }

    /// Whether this is the copy in a forked process, which has no such thread.
    fn is_copy(&self) -> bool {
        self.fork_depth != crate::process::fork::depth()
    }
}

impl Source for Fed {
    fn next_parts(&mut self) -> Vec<Arc<ChunkOutcome>> {
        if self.is_copy() {
            return Vec::new();
        }
        while let Feeder::Here = self.feeder {
            if let Some(parts) = self.take_here() {
                return parts;
            }
        }
        if let Feeder::Local(source) = &mut self.feeder {
            return source.next_parts();
        }
        loop {
            if let Some(parts) = self.take() {
                return parts;
            }
            let collector = &self.collector;
            self.executor
                .wait_until(&mut |waker| collector.poll_any(waker), None);
        }
    }

    #[cfg(feature = "stream")]
    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        fill: bool,
    ) -> Poll<Vec<Arc<ChunkOutcome>>> {
        if self.is_copy() {
            return Poll::Ready(Vec::new());
        }
        self.start();
        if let Feeder::Local(source) = &mut self.feeder {
            return source.poll_parts(context, fill);
        }
        loop {
            if let Some(parts) = self.take() {
                return Poll::Ready(parts);
            }
            if !self.collector.poll_any(Some(context.waker())) {
                return Poll::Pending;
            }
        }
    }

    #[cfg(feature = "stream")]
    fn stop_driving(&mut self) {
        self.open.leave_unattended();
        if !matches!(self.feeder, Feeder::Here) {
            self.executor.detach();
        }
    }

    fn remaining(&self) -> (usize, Option<usize>) {
        if let Feeder::Local(source) = &self.feeder {
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
        if let Feeder::Local(source) = &mut self.feeder {
            source.give(items);
        } else if self.has_buffer && !self.is_copy() {
            let mut state = self.tap.lock();
            state.flow.given = self.given;
            self.tap.wake(&state);
        }
    }

    fn counts_given(&self) -> bool {
        self.has_buffer
    }

    fn end_by(&mut self, how: Cancel) {
        self.end = how;
        if let Feeder::Local(source) = &mut self.feeder {
            source.end_by(how);
        }
    }

    fn rethrow(&mut self) {
        if let Feeder::Local(source) = &mut self.feeder {
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
        let mut feeder = std::mem::replace(&mut self.feeder, Feeder::Gone);
        if let Feeder::Here = feeder {
            let (reader, thread) = {
                let mut unread = self.tap.unread();
                (unread.reader.take(), unread.thread.take())
            };
            if let Some(thread) = thread {
                feeder = Feeder::Running(thread);
            }
            if let Some(mut reader) = reader {
                reader.watch(false);
                // The input's destructor is the caller's.
                drop(reader);
            }
        }
        if let Feeder::Running(thread) = feeder {
            self.collector.abandon();
            let panic = {
                let mut state = self.tap.lock();
                state.is_shut = true;
                self.tap.wake(&state);
                state.panic.take()
            };
            // Here and not where the last of the tap happens to go, which may be a thread that
            // leads the pool.
            panic.into_iter().for_each(drop_quietly);
            self.open.interrupt();
            self.executor.unwatch_input(&*self.open);
            Pending::new(self.collector.clone(), self.executor.clone()).cancel(self.end);
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
        collector.end_known(taken);
    }
    // Before anybody hears of the end.
    catch_and_discard(|| drop(pusher));
    tap.end(end, taken);
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
