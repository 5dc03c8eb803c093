//! What a pool of processes does for the typed methods of a `Pool`: [`Executor`].

use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::inspect;
use super::shared::Shared;
use crate::backend::config::check_processes;
use crate::error::build_error::{JoinError, ResizeError};
use crate::error::task_error::TaskError;
#[cfg(feature = "tracing")]
use crate::observe::call_span::Origin;
use crate::observe::dump::{Dump, WorkerDump};
use crate::observe::stats::Stats;
use crate::observe::tracer::Tracer;
use crate::process::fork::OF_FORK;
use crate::sync::atomic::Ordering;
use crate::sys;
use crate::task::call_id::CallId;
use crate::task::chunk::Chunk;
use crate::task::executor::{Cancel, Executor};
use crate::task::open_input::OpenInput;
#[cfg(feature = "tracing")]
use crate::worker::function::FunctionId;

impl Executor for Shared {
    fn submit(&self, chunk: Chunk) {
        if !self.is_ours() {
            chunk.finish(&TaskError::of_fork());
            return;
        }
        if chunk.has_attachments() {
            self.listen_for_frees();
        }
        let (attended, is_fed) = (chunk.attended, chunk.is_fed);
        let is_special = chunk.is_special();
        let mut core = self.lock();
        core.submit(chunk);
        if is_fed {
            core.dispatch();
            self.restore_invariant(&mut core);
        } else if attended {
            core.dispatch();
            // This thread is going to lead at once.
            self.keep_time(&mut core);
        } else if is_special || !core.may_wait() {
            core.drain_if_due();
            core.dispatch();
            self.restore_invariant(&mut core);
        }
        self.deliver(core);
    }

    #[inline]
    fn has_room(&self, wait: bool) -> bool {
        self.await_room(wait)
    }

    fn chooses_workers(&self) -> bool {
        true
    }

    fn wait_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        self.lead_until(poll, deadline)
    }

    fn watch_input(&self, open: Arc<dyn OpenInput>) -> bool {
        if self.is_ours() {
            let mut core = self.lock();
            core.watch(open.clone());
            self.restore_invariant(&mut core);
            // The thread that looks after the workers may have gone to sleep without it.
            if !core.open_for_supervisor().is_empty() {
                open.interrupt();
            }
            self.deliver(core);
        }
        true
    }

    fn unwatch_input(&self, open: &dyn OpenInput) {
        if self.is_ours() {
            self.lock().unwatch(open);
        }
    }

    fn has_idle_worker(&self, look_again: bool) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut core = self.lock();
        let is_idle = core.has_room_for_work();
        if is_idle && look_again && core.leadership().ask_later() {
            self.keep_time(&mut core);
        }
        is_idle
    }

    fn is_foreign(&self) -> bool {
        !self.is_ours()
    }

    #[cfg(feature = "tracing")]
    fn call_span(&self, function: FunctionId, name: Option<&str>) -> Option<Arc<Origin>> {
        self.is_ours()
            .then(|| self.capture.origin(function, name))?
    }

    fn detach(&self) {
        if self.is_ours() {
            let mut core = self.lock();
            core.listen_for_orphans();
            self.restore_invariant(&mut core);
            self.deliver(core);
        }
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut core = self.lock();
        let runs = core.cancel(call, how);
        self.restore_invariant(&mut core);
        self.deliver(core);
        runs
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.deferred.add([job]);
        self.start_callbacks();
    }

    fn processes(&self) -> usize {
        self.processes.load(Ordering::Relaxed)
    }

    fn resize(&self, processes: usize) -> Result<(), ResizeError> {
        check_processes(processes).map_err(ResizeError::new)?;
        if !self.is_ours() {
            return Err(ResizeError::new(OF_FORK));
        }
        let mut core = self.lock();
        if !core.is_open() {
            return Err(ResizeError::closed());
        }
        core.resize(processes);
        self.restore_invariant(&mut core);
        self.deliver(core);
        Ok(())
    }

    fn close(&self) {
        if self.is_ours() {
            self.is_ending.store(true, Ordering::SeqCst);
            let mut core = self.lock();
            core.close();
            core.dispatch();
            self.restore_invariant(&mut core);
            self.deliver(core);
            self.alarm.set();
        }
    }

    fn terminate(&self) {
        if self.is_ours() {
            self.is_ending.store(true, Ordering::SeqCst);
            let mut core = self.lock();
            core.end(TaskError::terminated());
            self.deliver(core);
            self.alarm.set();
        }
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if !self.is_ours() {
            // Its lock may be held by a thread that this process does not have.
            return Err(JoinError::of_fork());
        }
        if self.deferred.is_current_thread() || self.capture.is_telling_here() {
            return Err(JoinError::from_inside());
        }
        let mut core = self.lock();
        if core.is_open() {
            return Err(JoinError::not_closed());
        }
        self.is_ending.store(true, Ordering::SeqCst);
        // The reader of a stream may be this thread.
        core.lift_stream_bounds();
        while !self.is_over(&core) {
            if deadline.is_some_and(|deadline| deadline <= sys::now()) {
                return Ok(false);
            }
            core = self.wait_for_change(core, deadline);
        }
        drop(core);
        Ok(self.deferred.wait_until_idle(deadline) && self.capture.wait_until_told(deadline))
    }

    fn watch_end(&self, waker: &Waker) -> bool {
        self.end_watch.add(waker);
        true
    }

    fn unwatch_end(&self, waker: &Waker) {
        self.end_watch.remove(waker);
    }

    fn dump(&self) -> Dump {
        if !self.is_ours() {
            return Dump::default();
        }
        let (mut dump, regions) = self.lock().dump();
        inspect::look_at(&mut dump.workers, &regions);
        dump
    }

    fn activity(&self) -> Vec<WorkerDump> {
        match self.is_ours() {
            true => self.lock().dump().0.workers,
            false => Vec::new(),
        }
    }

    fn tracer(&self) -> io::Result<&Tracer> {
        match self.is_ours() {
            true => Ok(&self.tracer),
            false => Err(io::Error::other(OF_FORK)),
        }
    }

    fn stats(&self) -> Stats {
        if self.is_ours() {
            let mut stats = Stats {
                lines_dropped: self.capture.lines_dropped(),
                events_dropped: self.capture.events_dropped(),
                ..self.lock().stats()
            };
            for worker in &mut stats.workers {
                worker.rss = sys::rss(worker.pid());
                worker.cpu = sys::cpu_time(worker.pid());
            }
            stats
        } else {
            Stats::default()
        }
    }
}
