//! Where the outcomes of a call arrive.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::bytes::Bytes;
use crate::call::{Piece, Sink};
use crate::error::TaskError;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::worker::quietly;

/// Something that a call's outcomes arrive in.
pub(crate) trait Cell: Sink {
    /// What a completion callback looks at.
    type Outcome: Clone + Send + 'static;

    /// Whether all outcomes are there; if not, the waker, if any, is woken when they are.
    fn poll(&self, waker: Option<&Waker>) -> bool;

    /// Whether all outcomes are there.
    fn is_ready(&self) -> bool {
        self.poll(None)
    }

    /// Calls `callback` with the outcomes when they are there, at once if they are.
    fn on_complete(&self, callback: Box<dyn FnOnce(Self::Outcome) + Send>);

    /// Nobody wants what has not begun.
    fn abandon(&self);

    /// Whether what waits in the pool's queue must be looked for there when the call is
    /// cancelled; otherwise it is ended by `fail_unless_ready`.
    const QUEUED_APART: bool;

    /// Ends what has no outcome, where that can be done from here.
    fn fail_unless_ready(&self, error: TaskError);
}

/// The threads and tasks that wait for a cell.
#[derive(Default)]
struct Wakers(Vec<Waker>);

impl Wakers {
    fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|other| other.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    fn wake(self) {
        for waker in self.0 {
            // A waker is the user's; one that panics must not keep the others asleep.
            quietly(|| waker.wake());
        }
    }
}

/// The outcome of a single task.
#[derive(Default)]
pub(crate) struct TaskCell {
    state: Mutex<TaskState>,
    is_abandoned: AtomicBool,
}

#[derive(Default)]
struct TaskState {
    outcome: Option<Result<Bytes, TaskError>>,
    waiters: Option<Box<Waiters<Result<Bytes, TaskError>>>>,
}

/// Whoever wants to know.
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
            quietly(|| callback(outcome.clone()));
        }
    }
}

impl TaskCell {
    fn lock(&self) -> MutexGuard<'_, TaskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, if it is there.
    pub(crate) fn outcome(&self) -> Option<Result<Bytes, TaskError>> {
        self.lock().outcome.clone()
    }

    /// The outcome for the last who asks, if it is there.
    pub(crate) fn take(&self) -> Option<Result<Bytes, TaskError>> {
        self.lock().outcome.take()
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

impl Sink for TaskCell {
    fn complete(&self, piece: Piece) {
        let outcome = piece.into_single();
        // Who has cancelled a task is not given a value, whether it heeded that or not.
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

impl Cell for TaskCell {
    type Outcome = Result<Bytes, TaskError>;

    fn poll(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return true;
        }
        if let Some(waker) = waker {
            state.waiters.get_or_insert_default().wakers.add(waker);
        }
        false
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

    const QUEUED_APART: bool = false;

    fn fail_unless_ready(&self, error: TaskError) {
        self.set(Err(error));
    }
}

/// The outcomes of a call of many items, in pieces.
#[derive(Default)]
pub(crate) struct Collector {
    state: Mutex<CollectorState>,
    is_abandoned: AtomicBool,
}

#[derive(Default)]
struct CollectorState {
    pieces: Vec<Arc<Piece>>,
    /// Items that have been submitted and whose outcome is not there.
    missing: usize,
    waiters: Waiters<Vec<Arc<Piece>>>,
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, CollectorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more items are going to be submitted.
    pub(crate) fn expect(&self, items: usize) {
        self.lock().missing += items;
    }

    /// The pieces that have arrived since the last time.
    pub(crate) fn take(&self) -> Vec<Arc<Piece>> {
        std::mem::take(&mut self.lock().pieces)
    }

    /// Whether any pieces have arrived since they were last taken; if not, the waker, if any, is
    /// woken when one does.
    pub(crate) fn poll_any(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        let any = !state.pieces.is_empty() || state.missing == 0;
        if !any && let Some(waker) = waker {
            state.waiters.wakers.add(waker);
        }
        any
    }

    /// All pieces, in no order.
    pub(crate) fn pieces(&self) -> Vec<Arc<Piece>> {
        self.lock().pieces.clone()
    }
}

impl Sink for Collector {
    fn complete(&self, mut piece: Piece) {
        if self.is_abandoned() {
            // As in a single task. The errors among them nobody has asked for.
            piece = Piece {
                ledger: piece.ledger.take(),
                ..Piece::failed(piece.first, piece.count, TaskError::cancelled())
            };
        }
        let mut state = self.lock();
        state.missing = state.missing.saturating_sub(piece.count as usize);
        state.pieces.push(Arc::new(piece));
        let wakers = std::mem::take(&mut state.waiters.wakers);
        if state.missing > 0 {
            drop(state);
            wakers.wake();
        } else {
            let callbacks = std::mem::take(&mut state.waiters.callbacks);
            let pieces = if callbacks.is_empty() {
                Vec::new()
            } else {
                state.pieces.clone()
            };
            drop(state);
            Waiters { wakers, callbacks }.tell(&pieces);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl Cell for Collector {
    type Outcome = Vec<Arc<Piece>>;

    fn poll(&self, waker: Option<&Waker>) -> bool {
        let mut state = self.lock();
        if state.missing > 0
            && let Some(waker) = waker
        {
            state.waiters.wakers.add(waker);
        }
        state.missing == 0
    }

    fn on_complete(&self, callback: Box<dyn FnOnce(Self::Outcome) + Send>) {
        let mut state = self.lock();
        if state.missing > 0 {
            state.waiters.callbacks.push(callback);
        } else {
            let pieces = state.pieces.clone();
            drop(state);
            callback(pieces);
        }
    }

    fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }

    const QUEUED_APART: bool = true;

    fn fail_unless_ready(&self, _error: TaskError) {
        // Its items end one by one.
    }
}
