//! Where the outcomes of a call arrive.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::watch::Watch;
use crate::api::progress::Progress;
use crate::codec;
use crate::error::task_error::TaskError;
use crate::observe::running_calls::{CallProgress, KnownCall, RunningCall};
use crate::panic::catch::catch_and_discard;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::sys;
use crate::task::bytes::Bytes;
use crate::task::call_id::CallId;
use crate::task::chunk_outcome::{ChunkOutcome, CompletionSink};
use crate::task::executor::Executor;

/// Something that a call's outcomes arrive in.
#[allow(
    private_bounds,
    missing_docs,
    reason = "public as a parameter of handles only"
)]
pub trait ResultCell: CompletionSink + Default + 'static {
    /// What has arrived, when all is there.
    type Outcome: Clone + Send + 'static;

    /// One that waits for the outcome of one item.
    fn of_one() -> Arc<Self> {
        // Made where it stays: to make it elsewhere and move it takes longer.
        Arc::default()
    }

    /// The outcome of what failed as a whole.
    fn failed(error: TaskError) -> Self::Outcome;

    /// How many items have failed. Of one item it is said whether an `Err` has.
    fn failures(outcome: &Self::Outcome, counts_errors: bool) -> u64;

    /// The outcome, if it is there.
    fn outcome(&self) -> Option<Self::Outcome>;

    /// The outcome for the last caller, if it is there.
    fn take(&self) -> Option<Self::Outcome>;

    /// The same without a lock, if nobody else has the cell, as is so when all has arrived.
    fn take_own(&mut self) -> Option<Self::Outcome> {
        self.take()
    }

    /// Whether all outcomes are there; if not, the waker of the thread that waits, if any, is
    /// woken when they are.
    fn poll(&self, waker: Option<&Waker>) -> bool;

    /// The same for a task that polls the handle as a future. Only the last one is woken.
    fn poll_as_future(&self, waker: &Waker) -> bool;

    /// Nobody polls the handle as a future any more.
    fn forget_future(&self);

    /// Whether all outcomes are there.
    fn is_ready(&self) -> bool {
        self.poll(None)
    }

    /// Calls `callback` with the outcomes when they are there, at once if they are.
    fn on_complete(&self, callback: Box<dyn FnOnce(Self::Outcome) + Send>);

    /// Nobody wants what has not begun.
    fn abandon(&self);

    /// Ends what has no outcome, where that can be done from here.
    fn fail_unless_ready(&self, error: TaskError);
}

/// The wakers of those that wait for a cell.
#[derive(Default)]
struct Wakers {
    /// Of threads, any number of which may wait.
    threads: Vec<Waker>,
    /// Of the task that has polled last. It may have been another task before, or have had another
    /// waker; those are not to be woken, and not to be kept.
    future: Option<Waker>,
}

impl Wakers {
    fn add_thread(&mut self, waker: &Waker) {
        if !self.threads.iter().any(|other| other.will_wake(waker)) {
            self.threads.push(waker.clone());
        }
    }

    fn wake(self) {
        for waker in self.threads.into_iter().chain(self.future) {
            wake(waker);
        }
    }
}

/// A waker is the user's; one that panics must not keep the others asleep.
fn wake(waker: Waker) {
    catch_and_discard(|| waker.wake());
}

/// Puts a clone of `waker` where `place` says, unless `is_ready`, and says whether it is. To clone
/// or drop a waker is to run what the user has written, so the cell is not locked meanwhile.
fn replace<'a, S: 'a>(
    lock: impl Fn() -> MutexGuard<'a, S>,
    is_ready: impl Fn(&S) -> bool,
    place: impl Fn(&mut S) -> &mut Option<Waker>,
    waker: &Waker,
) -> bool {
    let mut state = lock();
    if is_ready(&state) {
        return true;
    }
    if place(&mut state)
        .as_ref()
        .is_some_and(|known| known.will_wake(waker))
    {
        return false;
    }
    drop(state);
    let waker = waker.clone();
    let mut state = lock();
    let is_ready = is_ready(&state);
    // Dropped after the lock.
    let _unused = if is_ready {
        Some(waker)
    } else {
        place(&mut state).replace(waker)
    };
    drop(state);
    is_ready
}

/// The outcome of a single task.
pub struct SingleResult {
    call: CallId,
    state: Mutex<TaskState>,
    is_abandoned: AtomicBool,
}

#[derive(Default)]
struct TaskState {
    outcome: Option<Result<Bytes, TaskError>>,
    waiters: Option<Box<Waiters<Result<Bytes, TaskError>>>>,
}

/// The threads and tasks that want to know.
struct Waiters<O> {
    wakers: Wakers,
    callbacks: Vec<Box<dyn FnOnce(O) + Send>>,
}

impl<O> Default for Waiters<O> {
    fn default() -> Self {
        Self {
            wakers: Wakers::default(),
            callbacks: Vec::new(),
        }
    }
}

impl<O: Clone> Waiters<O> {
    fn tell(self, outcome: &O) {
        self.wakers.wake();
        for callback in self.callbacks {
            catch_and_discard(|| callback(outcome.clone()));
        }
    }
}

impl Default for SingleResult {
    fn default() -> Self {
        Self {
            call: CallId::of_single(),
            state: Mutex::default(),
            is_abandoned: AtomicBool::new(false),
        }
    }
}

impl SingleResult {
    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, outcome: Result<Bytes, TaskError>) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        let waiters = state.waiters.take();
        if let Some(waiters) = waiters {
            state.outcome = Some(outcome.clone());
            drop(state);
            waiters.tell(&outcome);
        } else {
            state.outcome = Some(outcome);
        }
    }
}

impl CompletionSink for SingleResult {
    fn call(&self) -> CallId {
        self.call
    }

    fn complete(&self, part: ChunkOutcome) {
        let outcome = part.into_single();
        // A cancelled task gives no value, whether it heeded that or not.
        self.set(if outcome.is_ok() && self.is_abandoned() {
            Err(TaskError::cancelled())
        } else {
            outcome
        });
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl ResultCell for SingleResult {
    type Outcome = Result<Bytes, TaskError>;

    fn failed(error: TaskError) -> Self::Outcome {
        Err(error)
    }

    fn failures(outcome: &Self::Outcome, counts_errors: bool) -> u64 {
        let has_failed = match outcome {
            Ok(bytes) => counts_errors && bytes.to_slice().is_ok_and(|it| codec::is_err(&it)),
            Err(_) => true,
        };
        has_failed.into()
    }

    fn outcome(&self) -> Option<Self::Outcome> {
        self.lock().outcome.clone()
    }

    fn take(&self) -> Option<Self::Outcome> {
        self.lock().outcome.take()
    }

    fn take_own(&mut self) -> Option<Self::Outcome> {
        let state = self.state.get_mut();
        state.unwrap_or_else(PoisonError::into_inner).outcome.take()
    }

    fn poll(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return true;
        }
        if let Some(waker) = waker {
            let waiters = state.waiters.get_or_insert_default();
            waiters.wakers.add_thread(waker);
        }
        false
    }

    fn poll_as_future(&self, waker: &Waker) -> bool {
        replace(
            || self.lock(),
            |state| state.outcome.is_some(),
            |state| &mut state.waiters.get_or_insert_default().wakers.future,
            waker,
        )
    }

    fn forget_future(&self) {
        let mut state = self.lock();
        let waiters = state.waiters.as_mut();
        let waker = waiters.and_then(|waiters| waiters.wakers.future.take());
        drop(state);
        drop(waker);
    }

    fn on_complete(&self, callback: Box<dyn FnOnce(Self::Outcome) + Send>) {
        let mut state = self.lock();
        match &state.outcome {
            Some(outcome) => {
                let outcome = outcome.clone();
                drop(state);
                callback(outcome);
            }
            None => {
                let waiters = state.waiters.get_or_insert_default();
                waiters.callbacks.push(callback);
            }
        }
    }

    fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    fn fail_unless_ready(&self, error: TaskError) {
        self.set(Err(error));
    }
}

/// The outcomes of a call of many items, chunk by chunk.
pub struct Collector {
    call: CallId,
    state: Mutex<CollectorState>,
    is_abandoned: AtomicBool,
    /// The bar that shows how far it is.
    watch: Option<Box<Watch>>,
}

#[derive(Default)]
struct CollectorState {
    parts: Vec<Arc<ChunkOutcome>>,
    /// Items that have been submitted and whose outcome is not there.
    missing: usize,
    /// Items whose outcome is there, and those of them that have failed.
    ended: u64,
    failed: u64,
    /// How many there will be in all, if that is known.
    total: Option<usize>,
    /// More may be submitted at any time.
    is_open: bool,
    /// The thread that takes the outcomes as they come: there is one at most.
    taker: Option<Waker>,
    waiters: Waiters<Vec<Arc<ChunkOutcome>>>,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            call: CallId::of_many(),
            state: Mutex::default(),
            is_abandoned: AtomicBool::new(false),
            watch: None,
        }
    }
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, CollectorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets those who observe the pool see how far it is. `size` is what the input says of its.
    pub(crate) fn announce(
        self: &Arc<Self>,
        executor: &dyn Executor,
        name: Cow<'static, str>,
        size: (usize, Option<usize>),
    ) {
        // A pool that cannot be observed is not.
        let Ok(tracer) = executor.tracer() else {
            return;
        };
        self.lock().total = size.1.filter(|high| *high == size.0);
        let weak = Arc::downgrade(self);
        tracer.call_begins(KnownCall {
            name,
            begun: sys::now_ns(),
            call: weak,
        });
    }

    /// Nobody has it any more who could wait for results.
    pub(crate) fn leave(&self, executor: &dyn Executor) {
        if let Ok(tracer) = executor.tracer() {
            tracer.call_ends(&raw const *self as *const dyn RunningCall);
        }
    }

    /// Shows on `progress` how far it is; what may draw is run by `executor`.
    pub(crate) fn watch(&mut self, executor: Arc<dyn Executor>, progress: Progress) {
        self.watch = Some(Box::new(Watch::new(executor, progress)));
    }

    /// This many more items are going to be submitted.
    pub(crate) fn expect(&self, items: usize) {
        self.lock().missing += items;
        if let Some(watch) = &self.watch {
            watch.begin(items);
        }
    }

    /// Its input has ended, and has given so many items.
    pub(crate) fn end_known(&self, items: usize) {
        self.lock().total = Some(items);
    }

    /// More will be submitted, nobody knows when.
    pub(crate) fn keep_open(&self) {
        self.lock().is_open = true;
    }

    /// No more will be.
    pub(crate) fn close(&self) {
        let taker = {
            let mut state = self.lock();
            state.is_open = false;
            // Otherwise the waiting thread still waits.
            (state.missing == 0).then(|| state.taker.take()).flatten()
        };
        if let Some(waker) = taker {
            wake(waker);
        }
    }

    /// The outcomes that have arrived since the last time.
    pub(crate) fn take_arrived(&self) -> Vec<Arc<ChunkOutcome>> {
        self.show_end();
        std::mem::take(&mut self.lock().parts)
    }

    /// Whether any outcomes have arrived since they were last taken; if not, the waker, if any, is
    /// woken when one does, and no other that was given before.
    pub(crate) fn poll_any(&self, waker: Option<&Waker>) -> bool {
        let any = |state: &CollectorState| {
            !state.parts.is_empty() || (state.missing == 0 && !state.is_open)
        };
        match waker {
            None => any(&self.lock()),
            Some(waker) => replace(|| self.lock(), any, |state| &mut state.taker, waker),
        }
    }

    /// Before the results are read, for what is printed of them should come after the bar.
    fn show_end(&self) {
        if let Some(watch) = &self.watch
            && self.is_ready()
        {
            watch.finish();
        }
    }
}

impl CompletionSink for Collector {
    fn call(&self) -> CallId {
        self.call
    }

    fn complete(&self, mut part: ChunkOutcome) {
        if self.is_abandoned() {
            // As in a single task. The errors among them nobody has asked for.
            part = ChunkOutcome {
                ext: part.ext.take(),
                ..ChunkOutcome::failed(part.first, part.count, TaskError::cancelled())
            };
        }
        if let Some(watch) = &self.watch {
            watch.add(&part);
        }
        let failed = part.failures() as u64;
        let mut state = self.lock();
        state.missing = state.missing.saturating_sub(part.count as usize);
        state.ended += u64::from(part.count);
        state.failed += failed;
        state.parts.push(Arc::new(part));
        let taker = state.taker.take();
        let mut waiters = Waiters::default();
        let mut parts = Vec::new();
        if state.missing == 0 {
            waiters = std::mem::take(&mut state.waiters);
            if !waiters.callbacks.is_empty() {
                parts.clone_from(&state.parts);
            }
        }
        let is_over = state.missing == 0;
        drop(state);
        if is_over && let Some(watch) = &self.watch {
            watch.finish_later();
        }
        if let Some(waker) = taker {
            wake(waker);
        }
        waiters.tell(&parts);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl RunningCall for Collector {
    fn progress(&self) -> CallProgress {
        let state = self.lock();
        let total = state.total.map(|total| total as u64);
        let is_left = self.is_abandoned() && state.missing == 0;
        CallProgress {
            number: self.call.as_u64(),
            total,
            submitted: state.ended + state.missing as u64,
            ended: state.ended,
            failed: state.failed,
            is_over: is_left || total.is_some_and(|total| total <= state.ended),
        }
    }

    fn abandon(&self) {
        ResultCell::abandon(self);
    }
}

impl ResultCell for Collector {
    type Outcome = Vec<Arc<ChunkOutcome>>;

    fn of_one() -> Arc<Self> {
        let one = Self::default();
        one.expect(1);
        Arc::new(one)
    }

    fn failed(error: TaskError) -> Self::Outcome {
        vec![Arc::new(ChunkOutcome::failed(0, 1, error))]
    }

    fn failures(parts: &Self::Outcome, _: bool) -> u64 {
        parts.iter().map(|part| part.failures() as u64).sum()
    }

    fn outcome(&self) -> Option<Self::Outcome> {
        self.show_end();
        let state = self.lock();
        (state.missing == 0).then(|| state.parts.clone())
    }

    fn take(&self) -> Option<Self::Outcome> {
        self.show_end();
        let mut state = self.lock();
        (state.missing == 0).then(|| std::mem::take(&mut state.parts))
    }

    fn poll(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        if state.missing > 0
            && let Some(waker) = waker
        {
            state.waiters.wakers.add_thread(waker);
        }
        state.missing == 0
    }

    fn poll_as_future(&self, waker: &Waker) -> bool {
        replace(
            || self.lock(),
            |state| state.missing == 0,
            |state| &mut state.waiters.wakers.future,
            waker,
        )
    }

    fn forget_future(&self) {
        let waker = self.lock().waiters.wakers.future.take();
        drop(waker);
    }

    fn on_complete(&self, callback: Box<dyn FnOnce(Self::Outcome) + Send>) {
        let mut state = self.lock();
        if state.missing > 0 {
            state.waiters.callbacks.push(callback);
        } else {
            let parts = state.parts.clone();
            drop(state);
            callback(parts);
        }
    }

    fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    fn fail_unless_ready(&self, _error: TaskError) {
        // Its items end one by one.
    }
}
