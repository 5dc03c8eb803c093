//! The values that a running task emits, on their way to who reads them.
//!
//! At most `buffer` of them are unread: the worker waits for credit, which the reader gives by
//! taking values. How many were consumed stands in the worker's region
//! ([`Region::set_consumed`]), and is said in steps of half the buffer. That is enough: with
//! nothing unread, half the buffer is what the worker may emit at least.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::bytes::Bytes;
use crate::error::task_error::TaskError;
use crate::panic::catch::catch_and_discard;
use crate::shm::region::Region;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::worker::TakeValue;

/// See the module.
pub(crate) struct Emissions {
    /// How many values may be unread.
    buffer: u64,
    state: Mutex<State>,
    /// Notified when a task in a thread of this process may emit more, or need not.
    room: Condvar,
}

#[derive(Default)]
struct State {
    /// What was not read.
    unread: VecDeque<Result<Bytes, TaskError>>,
    /// How many values have come.
    emitted: u64,
    /// How many of them the task knows to be consumed.
    consumed: u64,
    reader: Reader,
    /// The task is to emit nothing more.
    is_disconnected: bool,
    /// Nothing more comes, and the outcome is there.
    has_ended: bool,
    /// Of who waits for a value.
    waker: Option<Waker>,
    /// The worker that runs the task, as far as it is known, and the number of the item there.
    worker: Option<(Arc<Region>, u64)>,
}

/// What becomes of values that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reader {
    /// They wait to be read, and so does the task.
    #[default]
    Reads,
    /// They wait to be read, and the task goes on.
    ReadsLater,
    /// Nobody reads them.
    IsGone,
}

/// See [`Emissions::next`].
pub(crate) enum Next {
    Value(Result<Bytes, TaskError>),
    /// There is none yet.
    Nothing,
    /// All have been read, and the outcome is there.
    End,
}

/// More values have come than may be unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Emissions {
    /// So many of which may be unread.
    pub(crate) fn new(buffer: u32) -> Self {
        Self {
            buffer: buffer.into(),
            state: Mutex::default(),
            room: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker may emit one more value: it knows how many were consumed.
    pub(crate) fn has_credit(&self) -> bool {
        let state = self.lock();
        state.emitted - state.consumed < self.buffer
    }

    /// How many values were not read.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn unread(&self) -> usize {
        self.lock().unread.len()
    }

    /// Whether a value has come. Then the task has begun, whatever anybody says.
    pub(crate) fn has_any(&self) -> bool {
        self.lock().emitted > 0
    }

    /// Takes in a value of the item with this number that the worker of this region runs. Says
    /// whether somebody waits for it, who is to be [woken](Self::wake). It wakes nobody but the
    /// worker, so it may be called under a lock.
    pub(crate) fn push(
        &self,
        value: Result<Bytes, TaskError>,
        region: &Arc<Region>,
        item: u64,
    ) -> Result<bool, Overrun> {
        let mut state = self.lock();
        if state.emitted - state.consumed >= self.buffer {
            return Err(Overrun);
        }
        if state
            .worker
            .as_ref()
            .is_none_or(|(_, known)| *known != item)
        {
            state.worker = Some((region.clone(), item));
        }
        state.emitted += 1;
        if state.reader != Reader::IsGone {
            state.unread.push_back(value);
        }
        self.give_credit(&mut state);
        Ok(state.waker.is_some())
    }

    /// The worker is at the next item, and what it is told is about that.
    pub(crate) fn leave_worker(&self) {
        self.lock().worker = None;
    }

    /// Lets the task know what was consumed, if that is enough to be said.
    fn give_credit(&self, state: &mut State) {
        let consumed = match state.reader {
            Reader::Reads => state.emitted - state.unread.len() as u64,
            Reader::ReadsLater | Reader::IsGone => state.emitted,
        };
        if consumed - state.consumed >= (self.buffer / 2).max(1) {
            state.consumed = consumed;
            if let Some((region, item)) = &state.worker {
                region.set_consumed(*item, consumed);
                region.wake_worker();
            }
            self.room.notify_all();
        }
    }

    /// What comes next for the reader.
    pub(crate) fn next(&self) -> Next {
        let mut state = self.lock();
        match state.unread.pop_front() {
            Some(value) => {
                self.give_credit(&mut state);
                Next::Value(value)
            }
            None if state.has_ended => Next::End,
            None => Next::Nothing,
        }
    }

    /// Whether a value waits to be read, or none will come any more. If not, the waker, if any, is
    /// woken when that changes, and no other that was given before.
    pub(crate) fn poll(&self, waker: Option<&Waker>) -> bool {
        let is_ready = |state: &State| !state.unread.is_empty() || state.has_ended;
        let state = self.lock();
        let Some(waker) = waker else {
            return is_ready(&state);
        };
        if is_ready(&state) {
            return true;
        }
        if state.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            return false;
        }
        // To clone or drop a waker is to run what the user has written.
        drop(state);
        let mut other = Some(waker.clone());
        let mut state = self.lock();
        let is_ready = is_ready(&state);
        if !is_ready {
            mem::swap(&mut state.waker, &mut other);
        }
        drop(state);
        drop(other);
        is_ready
    }

    /// Nobody waits for a value any more.
    pub(crate) fn forget_waker(&self) {
        let waker = self.lock().waker.take();
        drop(waker);
    }

    /// Wakes who waits for a value.
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            // It is the user's.
            catch_and_discard(|| waker.wake());
        }
    }

    /// Nothing more comes, and the outcome is there.
    pub(crate) fn end(&self) {
        {
            let mut state = self.lock();
            state.has_ended = true;
            state.is_disconnected = true;
            // That of a worker that has died.
            state.worker = None;
        }
        self.room.notify_all();
        self.wake();
    }

    /// The values are not read: those that there are go, and those that come.
    pub(crate) fn discard(&self) {
        let unread = {
            let mut state = self.lock();
            state.reader = Reader::IsGone;
            let unread = mem::take(&mut state.unread);
            self.give_credit(&mut state);
            unread
        };
        drop(unread);
    }

    /// The task is not to wait for the reader any more. The values that come are kept.
    pub(crate) fn lift_bound(&self) {
        let mut state = self.lock();
        if state.reader == Reader::Reads {
            state.reader = Reader::ReadsLater;
            self.give_credit(&mut state);
        }
    }

    /// The call was cancelled. A worker learns of that by its region; this is for a task in a
    /// thread of this process.
    pub(crate) fn disconnect(&self) {
        self.lock().is_disconnected = true;
        self.room.notify_all();
    }
}

/// A task in a thread of this process.
impl TakeValue for Emissions {
    fn take_value(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        // The reader reads on, or goes.
        while state.emitted - state.consumed >= self.buffer && !state.is_disconnected {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_disconnected {
            return false;
        }
        state.emitted += 1;
        if state.reader != Reader::IsGone {
            state.unread.push_back(Ok(bytes.into()));
        }
        self.give_credit(&mut state);
        drop(state);
        self.wake();
        true
    }
}

impl std::fmt::Debug for Emissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emissions").finish_non_exhaustive()
    }
}
