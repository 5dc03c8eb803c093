//! The thread on which completion callbacks run, started with the first one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::end_watch::EndWatch;
use crate::panic::catch::catch_and_discard;
use crate::process::fork;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys;

/// User code to be run.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Runs user code one job after the other, in order, on a thread of its own: nothing of the
/// pool waits for it, so it may block, panic, submit work, or drop the pool.
///
/// It is what an [`Executor`](crate::Executor) needs for its
/// [`spawn_callback`](crate::Executor::spawn_callback). The thread is started with the first job.
/// Dropped, it lets the thread end after its last job, and waits for nothing.
pub struct Callbacks {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    fork_depth: usize,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            queue: Arc::default(),
            thread: Mutex::default(),
            fork_depth: fork::depth(),
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Woken when there is nothing to run any more.
    watch: Arc<EndWatch>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// A job runs.
    is_running: bool,
    /// The thread ends when there is no job.
    is_finished: bool,
    /// There is a thread, or will be in a moment.
    has_thread: bool,
    thread: Option<ThreadId>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when all jobs are done, and, if it `stays`, the pool is dropped.
    fn work(&self, stays: bool) {
        let mut state = self.lock();
        state.thread = Some(thread::current().id());
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.is_running = true;
                drop(state);
                catch_and_discard(job);
                state = self.lock();
                state.is_running = false;
                self.changed.notify_all();
                if state.jobs.is_empty() && self.watch.has_any() {
                    drop(state);
                    self.watch.wake();
                    state = self.lock();
                }
            } else if state.is_finished || !stays {
                state.has_thread = false;
                if !stays {
                    // It has other things to do from now on.
                    state.thread = None;
                }
                return;
            } else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Callbacks {
    /// Without a job, and without a thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a pool that lets this know who waits for its end.
    pub(crate) fn watched(watch: Arc<EndWatch>) -> Self {
        let queue = Queue {
            watch,
            ..Queue::default()
        };
        Self {
            queue: Arc::new(queue),
            thread: Mutex::default(),
            fork_depth: fork::depth(),
        }
    }

    /// Runs a job soon. What it panics with is dropped.
    pub fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.add([job]);
        self.start();
    }

    /// Adds jobs, to be run in this order. They are run at the next [`start`](Self::start) at the
    /// latest.
    pub(crate) fn add(&self, jobs: impl IntoIterator<Item = Job>) {
        self.queue.lock().jobs.extend(jobs);
    }

    /// Sees to it that the jobs run that are there. To be called without a lock: where there is no
    /// thread to be had, they run here.
    pub(crate) fn start(&self) {
        if self.try_start() {
            return;
        }
        // Better here than never.
        let mut state = self.queue.lock();
        if !std::mem::replace(&mut state.has_thread, true) {
            drop(state);
            self.queue.work(false);
        }
    }

    /// The same for a caller who cannot run them. `false`: there is no thread to be had, and they
    /// wait for the next start.
    pub(crate) fn try_start(&self) -> bool {
        let mut state = self.queue.lock();
        let needs_thread = !std::mem::replace(&mut state.has_thread, true);
        drop(state);
        self.queue.changed.notify_all();
        if !needs_thread {
            return true;
        }
        let queue = self.queue.clone();
        let started = thread::Builder::new()
            .name("procpool-callbacks".into())
            .spawn(move || queue.work(true));
        match started {
            Ok(started) => {
                let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
                *thread = Some(started);
                true
            }
            Err(_) => {
                self.queue.lock().has_thread = false;
                false
            }
        }
    }

    /// Waits until there is nothing to run. `false`: there was by the deadline. A job that waits
    /// for this waits for itself: see [`is_current_thread`](Self::is_current_thread).
    #[must_use]
    pub fn wait_until_idle(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.queue.lock();
        while state.is_running || !state.jobs.is_empty() {
            state = match deadline {
                None => self
                    .queue
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(sys::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.queue
                        .changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        true
    }

    /// Whether the caller is one of the jobs.
    #[must_use]
    pub fn is_current_thread(&self) -> bool {
        self.queue.lock().thread == Some(thread::current().id())
    }

    /// Lets the thread end after its last job, and waits for that, unless this is the thread.
    pub fn finish(&self) {
        self.queue.lock().is_finished = true;
        self.queue.changed.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && !self.is_current_thread()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        if self.fork_depth != fork::depth() {
            // A copy: a thread that is not in this process may have had the lock.
            return;
        }
        self.queue.lock().is_finished = true;
        self.queue.changed.notify_all();
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
