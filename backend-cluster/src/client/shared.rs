//! What a pool's methods and its thread have in common.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use procpool_core::{Callbacks, Stats, TaskErrorKind};
use tokio::sync::mpsc::UnboundedSender;

use super::GATHER_LIMIT;
use super::command::Command;
use crate::agent_info::AgentInfo;

/// The name of the pool's thread.
pub(crate) const THREAD: &str = "procpool-cluster";

/// The pool's state, for its methods.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    slots: AtomicUsize,
    /// How many chunks have not ended.
    chunks: AtomicUsize,
    pub(crate) callbacks: Callbacks,
    commands: UnboundedSender<Command>,
}

/// See [`Shared`].
#[derive(Default)]
pub(crate) struct State {
    pub(crate) stats: Stats,
    pub(crate) agents: Vec<AgentInfo>,
    /// It takes no more tasks.
    pub(crate) is_closed: bool,
    /// Its thread has ended.
    pub(crate) has_ended: bool,
}

impl Shared {
    pub(crate) fn new(commands: UnboundedSender<Command>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            slots: AtomicUsize::new(0),
            chunks: AtomicUsize::new(0),
            callbacks: Callbacks::new(),
            commands,
        }
    }

    /// Never held while anybody's code runs.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the pool's thread. `false`: it has ended.
    pub(crate) fn tell(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// Asks the pool's thread, which asks the agents. `None`: it has ended, or it is the caller,
    /// who runs in a waker.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        if thread::current().name() == Some(THREAD) {
            return None;
        }
        let (sender, answer) = channel();
        // The thread answers by then, or has ended.
        self.tell(question(sender))
            .then(|| answer.recv_timeout(2 * GATHER_LIMIT).ok())?
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    /// One more chunk is under way.
    pub(crate) fn chunk_begins(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn chunk_ended(&self) {
        self.chunks.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many items have ended, with this failure or with values.
    pub(crate) fn count(&self, items: usize, failure: Option<TaskErrorKind>) {
        let stats = &mut self.lock().stats;
        match failure {
            None => stats.succeeded += items as u64,
            Some(kind) => stats.fail(kind, items as u64),
        }
    }

    /// Whether a worker has nothing to do, and nothing is on its way to it.
    pub(crate) fn has_idle_worker(&self) -> bool {
        self.chunks.load(Ordering::Relaxed) < self.slots()
    }

    /// The agents are these now.
    pub(crate) fn set_agents(&self, agents: Vec<AgentInfo>, slots: usize) {
        self.slots.store(slots, Ordering::Relaxed);
        self.lock().agents = agents;
        self.changed.notify_all();
    }

    /// The thread has ended.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.has_ended = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the state is like that. `false`: it was not by the deadline.
    pub(crate) fn wait_for(
        &self,
        is_so: impl Fn(&State) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        let mut state = self.lock();
        while !is_so(&state) {
            state = match deadline {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }
}
