//! Events on their way to one observer.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::trace::Event;
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys;

/// How many events may wait for their observer; those beyond are counted, and not kept.
pub(super) const MAX_EVENTS: usize = 1 << 16;

/// What one observer has not taken yet. It is bounded, and who reports never waits.
pub(crate) struct EventQueue {
    /// When the observer came, in nanoseconds of the monotonic clock.
    pub(crate) start: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Events for which there was no room.
    dropped: u64,
    is_finished: bool,
}

/// What an observer has taken.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) events: Vec<Event>,
    /// How many were dropped before these.
    pub(crate) dropped: u64,
    /// There will be no more.
    pub(crate) is_last: bool,
}

impl Default for EventQueue {
    fn default() -> Self {
        Self {
            start: sys::now_ns(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl EventQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.lock();
        if state.is_finished {
            return;
        }
        let was_empty = state.events.is_empty();
        for event in events {
            if state.events.len() < MAX_EVENTS {
                state.events.push(event);
            } else {
                state.dropped += 1;
            }
        }
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Counts events that were dropped elsewhere.
    pub(super) fn lost(&self, events: u64) {
        self.lock().dropped += events;
    }

    /// Later events are not kept.
    pub(crate) fn finish(&self) {
        self.lock().is_finished = true;
        self.changed.notify_one();
    }

    /// Waits until there is something, at most until then, and takes all of it into `taken`, whose
    /// memory is used again.
    pub(crate) fn take(&self, taken: &mut Taken, until: Option<Instant>) {
        taken.events.clear();
        let mut state = self.lock();
        while state.events.is_empty() && !state.is_finished {
            let left = until.map(|until| until.saturating_duration_since(sys::now()));
            state = match left {
                None => (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::swap(&mut taken.events, &mut state.events);
        taken.dropped = std::mem::take(&mut state.dropped);
        taken.is_last = state.is_finished;
    }
}
