//! A pool that is none: it runs every task in the caller.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::pool::Pool;
use crate::error::build_error::JoinError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::stats::Stats;
use crate::observe::trace::{Tracer, already_traced};
use crate::panic::catch::catch_and_discard;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::executor::{Cancel, Executor};
use crate::task::open_input::OpenInput;
use crate::worker::state::Scope;

/// Runs every task at once, in the thread that calls: the oracle for tests, and the way to step
/// through a task with a debugger.
///
/// It is faithful where it can be: arguments and results go through the same encoding, and a
/// panic is the same error. It has no process of its own, though: a task that crashes takes the
/// program with it, and a timeout cannot be kept. An item of an `imap` runs when its result is
/// asked for, and the result is given before the input is asked for another item.
///
/// ```
/// # use procpool_core as procpool;
/// use procpool::{Pool, SerialPool};
///
/// let pool = SerialPool::new();
/// assert_eq!(pool.map(|x: u64| x + 1, [1, 2, 3]).unwrap(), [2, 3, 4]);
/// ```
#[derive(Clone)]
pub struct SerialPool {
    executor: Arc<dyn Executor>,
}

impl SerialPool {
    /// A pool of the calling thread.
    #[must_use]
    pub fn new() -> Self {
        Self {
            executor: Arc::new(Serial {
                scope: Scope::new(),
                is_closed: AtomicBool::new(false),
                stats: Mutex::default(),
                tracer: Mutex::default(),
            }),
        }
    }
}

impl Default for SerialPool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool for SerialPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl std::fmt::Debug for SerialPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPool").finish_non_exhaustive()
    }
}

struct Serial {
    /// Its states are not those of other pools in the same thread.
    scope: Scope,
    is_closed: AtomicBool,
    stats: Mutex<Stats>,
    tracer: Mutex<Option<Tracer>>,
}

impl Serial {
    fn tracer(&self) -> MutexGuard<'_, Option<Tracer>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What its tasks keep in other threads goes when these end.
impl Drop for Serial {
    fn drop(&mut self) {
        self.scope.drop_states();
    }
}

impl Executor for Serial {
    fn submit(&self, mut chunk: Chunk) {
        if let Some(tracer) = &*self.tracer() {
            chunk.trace(tracer);
        }
        let count = chunk.count() as u64;
        self.stats().submitted += count;
        if self.is_closed.load(Ordering::Acquire) {
            self.stats().fail(TaskErrorKind::Closed, count);
            chunk.finish(&TaskError::closed());
        } else {
            // Counted before the outcome is known to anybody, as in the other pools.
            let scope = self.scope;
            let run = || {
                chunk.run_and_tell(|outcome| outcome.count_in(&mut self.stats()));
            };
            scope.run(run);
        }
    }

    fn wait_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        _deadline: Option<Instant>,
    ) -> bool {
        // Whatever was submitted has ended.
        poll(None)
    }

    /// There is no worker that could take anything while the caller is elsewhere.
    fn watch_input(&self, _open: Arc<dyn OpenInput>) -> bool {
        true
    }

    fn has_idle_worker(&self, _look_again: bool) -> bool {
        false
    }

    fn chooses_workers(&self) -> bool {
        true
    }

    fn runs_in_caller(&self) -> bool {
        true
    }

    fn cancel(&self, _call: CallId, _how: Cancel) -> bool {
        false
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        catch_and_discard(job);
    }

    fn processes(&self) -> usize {
        1
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn terminate(&self) {
        self.close();
    }

    fn join(&self, _deadline: Option<Instant>) -> Result<bool, JoinError> {
        if self.is_closed.load(Ordering::Acquire) {
            Ok(true)
        } else {
            Err(JoinError::not_closed())
        }
    }

    fn attach_tracer(&self, tracer: &Tracer) -> io::Result<()> {
        match &mut *self.tracer() {
            Some(_) => Err(already_traced()),
            none => {
                *none = Some(tracer.clone());
                Ok(())
            }
        }
    }

    fn detach_tracer(&self, tracer: &Tracer) {
        self.tracer().take_if(|it| it == tracer);
    }

    fn stats(&self) -> Stats {
        Self::stats(self).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An item runs when its result is asked for, and no other is taken before that was given.
    #[test]
    fn one_item_is_taken_for_each_result() {
        let pool = SerialPool::new();
        let taken = Cell::new(0);
        let input = || (0..10_u64).inspect(|_| taken.set(taken.get() + 1));
        for chunk in [1, 4] {
            taken.set(0);
            let call = pool.call(|x: u64| x + 1).chunksize(chunk);
            let mut results = call.imap_local(input());
            for x in 0..10 {
                assert_eq!(results.next(), Some(Ok(x + 1)));
                assert_eq!(taken.get(), x + 1);
            }
            assert_eq!(results.next(), None);
        }
    }
}
