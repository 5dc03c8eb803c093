//! The engine that every pool of processes shares.
//!
//! One lock guards the [`core`]: the pure [`scheduler`] and the parent's ends of the rings. Two
//! kinds of threads work on it. The [`supervisor`], one for each pool, starts workers, learns of
//! their deaths and keeps time. A thread that waits for a result becomes the [`leader`], if
//! there is none, and drains the rings itself. Without a leader, the supervisor drains them. See
//! `README.md` beside this file.

mod booking;
mod capture;
mod core;
mod dispatch;
mod ending;
mod frees;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod inspect;
mod leader;
mod lifecycle;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod notify;
mod parent_channel;
mod peer;
mod positions;
mod prepare;
mod published_tails;
mod record_reader;
mod replacing;
mod report;
mod scheduler;
mod slot_id;
#[cfg(feature = "tracing")]
mod span_keeper;
pub(crate) mod stack_walk;
mod supervisor;
mod terminating;
mod timers;
mod work;
mod work_unit;
mod worker_slot;
mod workers;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ptr;
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use self::capture::{Capture, WorkerPipes};
use self::core::{Core, End};
use self::leader::Leadership;
use self::lifecycle::Startup;
use self::slot_id::SlotId;
use self::terminating::AskAgain;
use self::work::Delivery;
use crate::backend::config::{PoolConfig, ValidatedConfig, check_processes};
use crate::backend::launcher::{Launcher, WorkerHandle};
use crate::backend::tie::Tie;
use crate::broadcast::Listener;
use crate::error::build_error::{BuildError, BuildErrorKind, JoinError, ResizeError};
use crate::error::hint::hint;
use crate::error::launch_error::LaunchError;
use crate::error::task_error::TaskError;
#[cfg(feature = "tracing")]
use crate::observe::call_span::Origin;
use crate::observe::dump::Dump;
use crate::observe::stats::Stats;
use crate::observe::trace::Tracer;
use crate::panic::catch::catch_and_discard;
use crate::process::fork::OF_FORK;
use crate::process::worker_info::WorkerInfo;
use crate::shm::region::Region;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, IS_MODEL, Mutex, MutexGuard, thread_local};
use crate::sys::{self, Event, Poller};
use crate::task::call_id::CallId;
use crate::task::callbacks::Callbacks;
use crate::task::chunk::Chunk;
use crate::task::executor::{Cancel, Executor};
use crate::task::open_input::OpenInput;

/// A pool of processes without the types: what a backend's pool has inside.
///
/// Dropping it terminates the pool and waits until its workers are gone.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    executor: Arc<dyn Executor>,
    supervisor: Option<JoinHandle<()>>,
    fork_depth: usize,
}

/// What the engine's threads share.
struct Shared {
    /// As many as the core has open positions.
    processes: Arc<AtomicUsize>,
    core: Mutex<Core>,
    /// Notified when the core's phase changes: workers reached, dead, everything over.
    changed: Condvar,
    /// Deliveries that were taken out of the core and have not arrived.
    delivering: AtomicUsize,
    /// The pool was closed or terminated.
    is_ending: AtomicBool,
    leadership: Leadership,
    /// The doorbells of all workers that were reached.
    doorbells: Poller,
    /// What the supervisor sleeps on: deaths, doorbells of starting workers, its own alarm, and the
    /// doorbells of all others while no thread leads.
    events: Poller,
    alarm: Arc<Event>,
    /// Hears of memory that was freed; none while no chunk had handles of any.
    frees: OnceLock<Arc<Listener>>,
    deferred: Callbacks,
    capture: Capture,
    backend: &'static str,
    fork_depth: usize,
}

/// A worker process that belongs to a slot.
struct Process {
    handle: Box<dyn WorkerHandle>,
    /// The other way to kill it. Kept until it is reaped.
    tie: Tie,
    number: u32,
    seed: u64,
    info: Option<WorkerInfo>,
    /// Why its launch failed.
    failure: Option<LaunchError>,
    /// Whether its death is being watched.
    is_watched: bool,
    /// When to ask again how it ended, if that has been asked in vain.
    ask_again: Option<AskAgain>,
    /// What it writes, if that is captured.
    pipes: Option<WorkerPipes>,
}

impl Process {
    fn info(&self) -> Option<&WorkerInfo> {
        self.info.as_ref()
    }

    /// The last lines that it has written to standard error, as far as they were read.
    fn stderr_tail(&self) -> Option<String> {
        self.pipes.as_ref().and_then(WorkerPipes::stderr_tail)
    }

    /// Kills the worker and its process group. Either way may fail, the handle's where the system
    /// refuses the signal, and the tie where the worker has lost its end; so both are taken.
    fn kill(&mut self) {
        self.handle.kill();
        self.tie.cut();
    }

    fn learn_pid(&mut self, generation: u32, region: &Arc<Region>) -> WorkerInfo {
        let pid = self.handle.pid().unwrap_or(0);
        let info = WorkerInfo::new(self.number, generation, pid).with_seed(self.seed);
        if let Some(pipes) = &self.pipes {
            pipes.introduce(info.clone(), region.clone());
        }
        self.info.insert(info).clone()
    }
}

thread_local! {
    /// Memory for deliveries, used again and again.
    static BATCH: Cell<Vec<Delivery>> = const { Cell::new(Vec::new()) };
}

/// For how many deliveries each thread keeps memory.
const KEEP_DELIVERIES: usize = 1024;

/// Names a worker in the readiness of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    slot: SlotId,
    number: u32,
}

impl Engine {
    /// Starts a pool's workers and waits until all of them have answered.
    ///
    /// # Errors
    /// When the config makes no sense, or a worker cannot be started; nothing is left behind.
    pub(crate) fn start(
        config: PoolConfig,
        launcher: Box<dyn Launcher>,
    ) -> Result<Self, BuildError> {
        let config = config.check()?;
        let refused = |error: io::Error| {
            BuildError::new(
                BuildErrorKind::Launch,
                format!(
                    "the system refuses what a pool needs: {error}{}",
                    hint(&error)
                ),
            )
        };
        crate::process::code::find_main_image().map_err(refused)?;
        let has_attachments = !config.attachments.is_empty();
        let shared = Arc::new(Shared::new(config, launcher.backend()).map_err(refused)?);
        if has_attachments {
            shared.listen_for_frees();
        }
        // While there may be one thread, which makes it quick.
        sys::accept_own_barriers();
        let supervisor = supervisor::start(shared.clone(), launcher).map_err(refused)?;
        let mut engine = Self {
            executor: shared.clone(),
            fork_depth: shared.fork_depth,
            shared,
            supervisor: Some(supervisor),
        };
        match engine.wait_for_startup() {
            Ok(()) => Ok(engine),
            Err(error) => {
                engine.finish();
                Err(error.into())
            }
        }
    }

    /// What the typed methods of a [`Pool`](crate::Pool) stand on.
    #[must_use]
    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    /// Ends when every worker has answered, or one has failed to, which its launch timeout bounds.
    fn wait_for_startup(&self) -> Result<(), LaunchError> {
        let mut core = self.shared.lock();
        loop {
            match core.lifecycle.startup() {
                Startup::Done => return Ok(()),
                Startup::Failed(error) => return Err(error.clone()),
                Startup::Waiting(_) => core = self.shared.wait_for_change(core, None),
            }
        }
    }

    /// Ends when all workers are gone, which SIGKILL has seen to, or a few seconds after that: see
    /// [`terminating`]. Nor does it wait longer for a supervisor that the system holds in the
    /// middle of a launch. Then it waits for the callbacks that run.
    fn finish(&mut self) {
        self.shared.terminate();
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.thread().id() != thread::current().id()
        {
            // A model has no such systems, and a wait that is over would hide a wake-up that is
            // lost.
            let give_up = (!IS_MODEL).then(|| sys::now() + self.shared.patience());
            let mut core = self.shared.lock();
            while !core.has_no_supervisor && give_up.is_none_or(|give_up| sys::now() < give_up) {
                core = self.shared.wait_for_change(core, give_up);
            }
            let has_ended = core.has_no_supervisor;
            drop(core);
            if has_ended {
                // It does not panic; if it did, there is nothing left to wait for.
                let _ = supervisor.join();
            }
        }
        self.shared.deferred.finish();
        self.shared.capture.finish();
    }
}

/// How long it may take a supervisor that has nothing to wait for to come to its end.
const GRACE: Duration = Duration::from_secs(5);

/// The same where it may be asleep for good.
const DEAF_GRACE: Duration = Duration::from_millis(100);

impl Drop for Engine {
    fn drop(&mut self) {
        if self.fork_depth == crate::process::fork::depth() {
            self.finish();
        } else {
            // This is the copy in a forked process: the workers are its parent's, and so is
            // everything that dropping would release.
            #[allow(clippy::mem_forget, clippy::disallowed_methods)]
            std::mem::forget((
                self.shared.clone(),
                self.executor.clone(),
                self.supervisor.take(),
            ));
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.shared.backend)
            .field("processes", &self.shared.processes())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(config: ValidatedConfig, backend: &'static str) -> io::Result<Self> {
        let capture = Capture::new(&config)?;
        let core = Core::new(config);
        let shared = Self {
            processes: core.lifecycle.processes().clone(),
            core: Mutex::new(core),
            changed: Condvar::new(),
            delivering: AtomicUsize::new(0),
            is_ending: AtomicBool::new(false),
            leadership: Leadership::new()?,
            doorbells: Poller::new()?,
            events: Poller::new()?,
            alarm: Arc::new(Event::new()?),
            frees: OnceLock::new(),
            deferred: Callbacks::default(),
            capture,
            backend,
            fork_depth: crate::process::fork::depth(),
        };
        shared.prepare()?;
        Ok(shared)
    }

    /// How long to wait for the supervisor of a pool that has ended.
    fn patience(&self) -> Duration {
        match self.events.wait(&mut Vec::new(), Some(Duration::ZERO)) {
            // The program has closed what it does not know, and with that the workers' ties, which
            // has killed them. If the supervisor was asleep then, nothing can wake it any more.
            Err(_) => DEAF_GRACE,
            Ok(()) => terminating::WAIT + GRACE,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing of the user's runs under the lock, so a panic there is a defect of ours, and
        // going on is better than hanging everybody.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change<'a>(
        &self,
        core: MutexGuard<'a, Core>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Core> {
        match deadline {
            None => self
                .changed
                .wait(core)
                .unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(sys::now());
                self.changed
                    .wait_timeout(core, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }

    /// Unlocks, and delivers what there is.
    fn deliver(&self, mut core: MutexGuard<'_, Core>) {
        debug_assert!(
            !core.owes_dispatch(),
            "whoever drains hands out what waits: nobody else may come"
        );
        if std::mem::take(&mut core.has_errand) {
            self.alarm.set();
        }
        let has_notices = match core.notify.take_notices() {
            // With the lock, so that they stay in order, and so that `join` knows of them.
            Some(notices) => {
                self.deferred.add(notices);
                true
            }
            None => false,
        };
        if !core.notify.has_deliveries() {
            drop(core);
            if has_notices {
                self.deferred.start();
            }
            return;
        }
        let mut batch = BATCH.with(Cell::take);
        core.notify.swap_deliveries(&mut batch);
        self.delivering.fetch_add(1, Ordering::Relaxed);
        drop(core);
        if has_notices {
            self.deferred.start();
        }
        for delivery in batch.drain(..) {
            // It wakes wakers, which are the user's.
            catch_and_discard(|| delivery.deliver());
        }
        if batch.capacity() <= KEEP_DELIVERIES {
            BATCH.with(|kept| kept.set(batch));
        }
        // `join` sets the flag before it looks at the counter, and we look at the flag after we
        // have changed the counter: one of us sees the other.
        self.delivering.fetch_sub(1, Ordering::SeqCst);
        if self.is_ending.load(Ordering::SeqCst) {
            let _core = self.lock();
            self.changed.notify_all();
        }
    }

    /// Whether this process is the one that the pool belongs to, and not a fork of it.
    fn is_ours(&self) -> bool {
        self.fork_depth == crate::process::fork::depth()
    }

    fn is_over(&self, core: &Core) -> bool {
        core.is_over() && self.delivering.load(Ordering::SeqCst) == 0
    }
}

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
        let mut core = self.lock();
        core.submit(chunk);
        if is_fed {
            core.dispatch();
            self.settle(&mut core);
        } else if attended {
            core.dispatch();
            // This thread is going to lead at once.
            self.keep_time(&core);
        } else if !core.may_wait() {
            core.drain_if_due();
            core.dispatch();
            self.settle(&mut core);
        }
        self.deliver(core);
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
            core.open.push(open.clone());
            self.settle(&mut core);
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
            self.lock()
                .open
                .retain(|other| !ptr::addr_eq(Arc::as_ptr(other), open));
        }
    }

    fn has_idle_worker(&self, look_again: bool) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut core = self.lock();
        let is_idle = core.has_room_for_work();
        if is_idle && look_again && core.leadership.ask_at.is_none() {
            core.leadership.ask_at = Some(sys::now_ns() + leader::ABSENCE_NS);
            self.keep_time(&core);
        }
        is_idle
    }

    fn is_foreign(&self) -> bool {
        !self.is_ours()
    }

    #[cfg(feature = "tracing")]
    fn current_span(&self) -> Option<Arc<Origin>> {
        self.is_ours().then(|| self.capture.origin())?
    }

    fn detach(&self) {
        if self.is_ours() {
            let mut core = self.lock();
            core.orphan();
            self.settle(&mut core);
            self.deliver(core);
        }
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut core = self.lock();
        let runs = core.cancel(call, how);
        self.settle(&mut core);
        self.deliver(core);
        runs
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.deferred.run(job);
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
        if !matches!(core.end, End::Open) {
            return Err(ResizeError::closed());
        }
        core.resize(processes);
        self.settle(&mut core);
        self.deliver(core);
        Ok(())
    }

    fn close(&self) {
        if self.is_ours() {
            self.is_ending.store(true, Ordering::SeqCst);
            let mut core = self.lock();
            core.close();
            core.dispatch();
            self.settle(&mut core);
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
        if matches!(core.end, End::Open) {
            return Err(JoinError::not_closed());
        }
        self.is_ending.store(true, Ordering::SeqCst);
        while !self.is_over(&core) {
            if deadline.is_some_and(|deadline| deadline <= sys::now()) {
                return Ok(false);
            }
            core = self.wait_for_change(core, deadline);
        }
        drop(core);
        Ok(self.deferred.wait_until_idle(deadline) && self.capture.wait_until_told(deadline))
    }

    fn dump(&self) -> Dump {
        if !self.is_ours() {
            return Dump::default();
        }
        let (mut dump, regions) = self.lock().dump();
        inspect::look_at(&mut dump.workers, &regions);
        dump
    }

    fn attach_tracer(&self, tracer: &Tracer) -> io::Result<()> {
        if self.is_ours() {
            self.lock().trace(tracer)
        } else {
            Err(io::Error::other(OF_FORK))
        }
    }

    fn detach_tracer(&self, tracer: &Tracer) {
        if self.is_ours() {
            self.lock().notify.detach_tracer(tracer);
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
            }
            stats
        } else {
            Stats::default()
        }
    }
}
