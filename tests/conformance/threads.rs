//! A pool of threads, as somebody else would write it: from public items alone.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use procpool::executor::{CallId, Callbacks, Cancel, Chunk, Executor, ItemCounts};
use procpool::{JoinError, Pool, Stats, TaskError, TaskErrorKind};
use procpool_conformance::Subject;

/// [`ThreadPool`].
pub(crate) struct Threads;

impl Subject for Threads {
    type Pool = ThreadPool;
    const NAME: &str = "threads";
    const IS_TRACED: bool = false;

    fn pool(workers: usize) -> ThreadPool {
        ThreadPool::new(workers)
    }

    fn default_pool() -> ThreadPool {
        ThreadPool::new(2)
    }
}

/// Runs tasks in threads of the program.
pub(crate) struct ThreadPool {
    executor: Arc<dyn Executor>,
}

impl ThreadPool {
    fn new(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            workers,
            state: Mutex::default(),
            changed: Condvar::new(),
            callbacks: Callbacks::new(),
            counts: ItemCounts::default(),
        });
        for _ in 0..workers {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work());
        }
        Self {
            executor: Arc::new(Handle(shared)),
        }
    }
}

impl Pool for ThreadPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.terminate();
    }
}

struct Shared {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
    callbacks: Callbacks,
    counts: ItemCounts,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Chunk>,
    /// The calls that chunks run of.
    running: Vec<CallId>,
    is_closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and notifies everyone that waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let woken = self.changed.wait(state);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the pool is closed and all is done.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.queue.pop_front() {
                let task = chunk.call();
                state.running.push(task);
                drop(state);
                chunk.run_here();
                self.change(|state| {
                    let place = state.running.iter().position(|running| *running == task);
                    state.running.swap_remove(place.expect("it was put there"));
                });
                state = self.lock();
            } else if state.is_closed {
                return;
            } else {
                state = self.wait(state);
            }
        }
    }

    fn give_up(&self, mut is_given_up: impl FnMut(&Chunk) -> bool) {
        let given_up = self.change(|state| {
            let chunks = state.queue.drain(..);
            let (given_up, kept): (Vec<Chunk>, Vec<Chunk>) = chunks.partition(&mut is_given_up);
            state.queue = kept.into();
            given_up
        });
        let error = TaskError::other(TaskErrorKind::Cancelled, "the task was cancelled");
        for chunk in given_up {
            chunk.finish(&error);
        }
    }
}

struct Handle(Arc<Shared>);

impl Executor for Handle {
    fn submit(&self, mut chunk: Chunk) {
        chunk.count_in(&self.0.counts);
        let refused = self.0.change(|state| {
            if state.is_closed {
                return Some(chunk);
            }
            state.queue.push_back(chunk);
            None
        });
        if let Some(chunk) = refused {
            chunk.finish(&TaskError::other(
                TaskErrorKind::Closed,
                "the pool is closed",
            ));
        }
    }

    fn cancel(&self, task: CallId, _how: Cancel) -> bool {
        self.0.give_up(|chunk| chunk.call() == task);
        self.0.lock().running.contains(&task)
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.callbacks.run(job);
    }

    fn processes(&self) -> usize {
        self.0.workers
    }

    fn close(&self) {
        self.0.change(|state| state.is_closed = true);
    }

    fn terminate(&self) {
        self.close();
        self.0.give_up(|_| true);
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if self.0.callbacks.is_current_thread() {
            return Err(JoinError::from_inside());
        }
        let mut state = self.0.lock();
        if !state.is_closed {
            return Err(JoinError::not_closed());
        }
        while !(state.queue.is_empty() && state.running.is_empty()) {
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            state = match deadline {
                None => self.0.wait(state),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let woken = self.0.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(state);
        Ok(self.0.callbacks.wait_until_idle(deadline))
    }

    fn stats(&self) -> Stats {
        let queued: usize = self.0.lock().queue.iter().map(Chunk::count).sum();
        self.0.counts.stats(queued as u64)
    }
}
