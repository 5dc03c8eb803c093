//! What a pool's methods and its thread have in common.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use procpool_core::{
    Callbacks, Chunk, ItemCounts, OpenInput, Stats, TaskError, TaskErrorKind, Tracer,
};
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
    /// Inputs that keep their readers waiting.
    inputs: Mutex<Vec<Arc<dyn OpenInput>>>,
    /// There may be a worker without work since they were asked last.
    may_be_idle: AtomicBool,
    /// They are to be asked soon.
    asks_soon: AtomicBool,
    pub(crate) callbacks: Callbacks,
    pub(crate) tracer: Tracer,
    items: ItemCounts,
    commands: UnboundedSender<Command>,
}

/// See [`Shared`].
#[derive(Default)]
pub(crate) struct State {
    /// Printed lines that were lost here.
    pub(crate) lines_dropped: u64,
    pub(crate) agents: Vec<AgentInfo>,
    /// It takes no more tasks.
    pub(crate) is_closed: bool,
    /// Its thread has ended.
    pub(crate) has_ended: bool,
}

impl Shared {
    pub(crate) fn new(commands: UnboundedSender<Command>) -> Self {
        let tracer = Tracer::default();
        let of_tracer = commands.clone();
        tracer.on_change(move || {
            // Without a thread there are no workers.
            let _ = of_tracer.send(Command::Observers);
        });
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            slots: AtomicUsize::new(0),
            chunks: AtomicUsize::new(0),
            inputs: Mutex::default(),
            may_be_idle: AtomicBool::new(false),
            asks_soon: AtomicBool::new(false),
            callbacks: Callbacks::new(),
            tracer,
            items: ItemCounts::default(),
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

    /// Takes a chunk for the pool's thread, unless the pool is closed.
    pub(crate) fn submit(&self, mut chunk: Chunk) {
        chunk.trace(&self.tracer);
        chunk.count_in(&self.items);
        let (chunk, completion) = chunk.into_parts();
        let state = self.lock();
        if state.is_closed {
            drop(state);
            return completion.finish(&closed());
        }
        self.chunk_begins();
        // Under the lock: before the command that closes the pool, or not at all.
        let sent = self.commands.send(Command::Submit { chunk, completion });
        drop(state);
        // Without a thread, the completion fails what it has when it is dropped.
        drop(sent);
    }

    /// The same of one that was submitted before.
    pub(crate) fn resubmit(&self, chunk: Chunk) {
        if self.lock().has_ended {
            return chunk.finish(&closed());
        }
        let (chunk, completion) = chunk.into_parts();
        self.chunk_begins();
        // Without a thread, the completion fails what it has when it is dropped.
        self.tell(Command::Submit { chunk, completion });
    }

    /// One more chunk is under way.
    pub(crate) fn chunk_begins(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn chunk_ended(&self) {
        self.chunks.fetch_sub(1, Ordering::SeqCst);
        self.may_be_idle.store(true, Ordering::Relaxed);
    }

    /// What this side knows. So many items wait.
    pub(crate) fn stats(&self, queued: u64) -> Stats {
        let mut stats = self.items.stats(queued);
        stats.lines_dropped = self.lock().lines_dropped;
        stats
    }

    /// Whether a worker has nothing to do, and nothing is on its way to it.
    pub(crate) fn has_idle_worker(&self) -> bool {
        // A thread that reads an input has noted before that nobody wants more of it, and the
        // pool's thread asks for more after a chunk has ended: one of the two sees the other.
        fence(Ordering::SeqCst);
        self.chunks.load(Ordering::SeqCst) < self.slots()
    }

    fn inputs(&self) -> MutexGuard<'_, Vec<Arc<dyn OpenInput>>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread is about to read an input that may keep it waiting.
    pub(crate) fn watch_input(&self, open: Arc<dyn OpenInput>) {
        self.inputs().push(open.clone());
        if self.has_idle_worker() || self.lock().is_closed {
            open.interrupt();
        }
    }

    /// It does not any more.
    pub(crate) fn unwatch_input(&self, open: &dyn OpenInput) {
        let address = std::ptr::from_ref(open).addr();
        let mut inputs = self.inputs();
        inputs.retain(|it| Arc::as_ptr(it).addr() != address);
    }

    /// Has the pool's thread ask inputs in a moment, whatever comes until then.
    pub(crate) fn ask_inputs_soon(&self) {
        if !self.asks_soon.swap(true, Ordering::Relaxed) {
            self.tell(Command::AskInputs);
        }
    }

    /// Asks inputs for what was read, if a worker may have become idle, or if this `is_due`.
    pub(crate) fn ask_inputs(&self, is_due: bool) {
        if is_due {
            self.asks_soon.store(false, Ordering::Relaxed);
        }
        let may_be_idle = self.may_be_idle.swap(false, Ordering::Relaxed);
        if (may_be_idle || is_due) && self.has_idle_worker() {
            self.ask_all_inputs();
        }
    }

    /// What is there is submitted now, and what comes next as soon as it comes.
    fn ask_all_inputs(&self) {
        let inputs = self.inputs().clone();
        for chunk in inputs.iter().filter_map(|open| open.ask()) {
            self.submit(chunk);
        }
    }

    /// The agents are these now.
    pub(crate) fn set_agents(&self, agents: Vec<AgentInfo>, slots: usize) {
        self.slots.store(slots, Ordering::Relaxed);
        self.may_be_idle.store(true, Ordering::Relaxed);
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
        // Their calls end.
        self.ask_all_inputs();
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

fn closed() -> TaskError {
    TaskError::other(TaskErrorKind::Closed, "the pool is closed")
}
