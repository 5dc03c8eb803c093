//! What the threads of a pool share, and how they take and leave the core's lock.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use super::capture::Capture;
use super::core::Core;
use super::leadership::Leadership;
use super::token::ALARM;
use super::work::Delivery;
use crate::backend::config::ValidatedConfig;
use crate::broadcast::Listener;
use crate::observe::tracer::Tracer;
use crate::panic::catch::catch_and_discard;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, thread_local};
use crate::sys::{self, Event, Poller};
use crate::task::callbacks::Callbacks;
use crate::task::end_watch::EndWatch;

/// What the engine's threads share.
pub(super) struct Shared {
    /// As many as the core has open positions.
    pub(super) processes: Arc<AtomicUsize>,
    /// Where the core reports what happens.
    pub(super) tracer: Tracer,
    pub(super) core: Mutex<Core>,
    /// Notified when the core's phase changes: workers reached, dead, everything over.
    pub(super) changed: Condvar,
    /// How many tasks may wait in the queue before a submitter waits.
    pub(super) max_queued: Option<usize>,
    /// Notified when there is room in the queue, or none will be asked for any more.
    room: Condvar,
    /// Deliveries that were taken out of the core and have not arrived.
    pub(super) delivering: AtomicUsize,
    /// Who waits for the end without a thread.
    pub(super) end_watch: Arc<EndWatch>,
    /// The pool was closed or terminated.
    pub(super) is_ending: AtomicBool,
    pub(super) leadership: Leadership,
    /// The bells of all workers that were reached.
    pub(super) bells: Poller,
    /// What the supervisor sleeps on: deaths, doorbells of starting workers, its own alarm, and the
    /// bells of all others while no thread leads.
    pub(super) events: Poller,
    pub(super) alarm: Arc<Event>,
    /// Hears of memory that was freed; none while no chunk had handles of any.
    pub(super) frees: OnceLock<Arc<Listener>>,
    pub(super) deferred: Callbacks,
    /// There was no thread to be had for some of these, and the supervisor is to see to them.
    has_refused_callbacks: AtomicBool,
    pub(super) capture: Capture,
    pub(super) backend: &'static str,
    pub(super) fork_depth: usize,
}

thread_local! {
    /// Memory for deliveries, used again and again.
    static BATCH: Cell<Vec<Delivery>> = const { Cell::new(Vec::new()) };
}

thread_local! {
    /// This thread delivers: what wakes a waker may submit tasks.
    static IS_DELIVERING: Cell<bool> = const { Cell::new(false) };
}

/// For how many deliveries each thread keeps memory.
const KEEP_DELIVERIES: usize = 1024;

impl Shared {
    pub(super) fn new(config: ValidatedConfig, backend: &'static str) -> io::Result<Self> {
        let end_watch = Arc::new(EndWatch::default());
        let capture = Capture::new(&config, &end_watch)?;
        let max_queued = config.max_queued;
        let core = Core::new(config);
        let shared = Self {
            processes: core.lifecycle().processes().clone(),
            tracer: core.tracer().clone(),
            core: Mutex::new(core),
            changed: Condvar::new(),
            max_queued,
            room: Condvar::new(),
            delivering: AtomicUsize::new(0),
            end_watch: end_watch.clone(),
            is_ending: AtomicBool::new(false),
            leadership: Leadership::new()?,
            bells: Poller::new()?,
            events: Poller::new()?,
            alarm: Arc::new(Event::new()?),
            frees: OnceLock::new(),
            deferred: Callbacks::watched(end_watch.clone()),
            has_refused_callbacks: AtomicBool::new(false),
            capture,
            backend,
            fork_depth: crate::process::fork::depth(),
        };
        shared.prepare()?;
        Ok(shared)
    }

    /// Adds the descriptors that are there from the beginning to the pollers.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.events.add(&self.alarm, ALARM)?;
        self.bells.add(&**self.leadership.wakeup(), ALARM)?;
        Ok(())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing of the user's runs under the lock, so a panic there is a defect of ours, and
        // going on is better than hanging everybody.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_for_change<'a>(
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

    /// Something has happened that somebody may wait for. To be called without the lock.
    pub(super) fn tell_of_change(&self) {
        self.changed.notify_all();
        self.end_watch.wake();
    }

    /// Unlocks, and delivers what there is.
    #[inline]
    pub(super) fn deliver(&self, core: MutexGuard<'_, Core>) {
        self.unlock(core, true);
    }

    /// Has the callbacks run that were added. To be called without the lock.
    ///
    /// Where there is no thread to be had for them, this one does not run them either: it may lead
    /// the pool, or be in the middle of deliveries that `join` waits for, and a callback may use
    /// the pool and wait. The supervisor is in the middle of nothing.
    pub(super) fn start_callbacks(&self) {
        if self.deferred.try_start() {
            return;
        }
        self.has_refused_callbacks.store(true, Ordering::SeqCst);
        // It looks once more after it has said that it has ended.
        if self.lock().has_no_supervisor() {
            self.run_refused_callbacks();
        } else {
            self.alarm.set();
        }
    }

    /// Runs the callbacks that there was no thread for: there may be one now, or this one does it.
    pub(super) fn run_refused_callbacks(&self) {
        if self.has_refused_callbacks.swap(false, Ordering::SeqCst) {
            self.deferred.start();
        }
    }

    /// The calls decide which of their items are tried again.
    #[cold]
    fn decide(&self, undecided: Vec<Delivery>) {
        let verdicts = undecided.into_iter().map(Delivery::decide).collect();
        let mut core = self.lock();
        core.decided(verdicts);
        core.dispatch();
        self.restore_invariant(&mut core);
        // What is new to be decided is for the supervisor: where attempts fail as fast as they are
        // made, this thread would have no end.
        if core.has_undecided() {
            self.alarm.set();
        }
        self.unlock(core, false);
    }

    /// Unlocks, and delivers what there is; `decides`: what is undecided as well.
    fn unlock(&self, mut core: MutexGuard<'_, Core>, decides: bool) {
        debug_assert!(
            !core.owes_dispatch(),
            "whoever drains hands out what waits: nobody else may come"
        );
        if core.take_errand() {
            self.alarm.set();
        }
        if core.awaits_room() && self.is_roomy(&core) {
            self.room.notify_all();
        }
        let has_notices = match core.take_notices() {
            // With the lock, so that they stay in order, and so that `join` knows of them.
            Some(notices) => {
                self.deferred.add(notices);
                true
            }
            None => false,
        };
        if !core.has_deliveries() {
            drop(core);
            if has_notices {
                self.start_callbacks();
            }
            return;
        }
        let undecided = if decides {
            core.take_undecided()
        } else {
            Vec::new()
        };
        let mut batch = BATCH.with(Cell::take);
        core.swap_deliveries(&mut batch);
        self.delivering.fetch_add(1, Ordering::Relaxed);
        drop(core);
        if has_notices {
            self.start_callbacks();
        }
        let is_bounded = self.max_queued.is_some();
        let outer = is_bounded && IS_DELIVERING.with(|it| it.replace(true));
        for delivery in batch.drain(..) {
            // It wakes wakers, which are the user's.
            catch_and_discard(|| delivery.deliver());
        }
        if !undecided.is_empty() {
            self.decide(undecided);
        }
        if is_bounded {
            IS_DELIVERING.with(|it| it.set(outer));
        }
        if batch.capacity() <= KEEP_DELIVERIES {
            BATCH.with(|kept| kept.set(batch));
        }
        // `join` sets the flag before it looks at the counter, and we look at the flag after we
        // have changed the counter: one of us sees the other.
        self.delivering.fetch_sub(1, Ordering::SeqCst);
        if self.is_ending.load(Ordering::SeqCst) {
            let core = self.lock();
            self.changed.notify_all();
            drop(core);
            self.end_watch.wake();
        }
    }

    /// Whether nobody who submits a task has to wait.
    fn is_roomy(&self, core: &Core) -> bool {
        !core.is_open() || self.max_queued.is_none_or(|max| core.queue_len() < max)
    }

    /// Whether a task need not wait for room in the queue; asked to `wait`, it does so first.
    pub(super) fn await_room(&self, wait: bool) -> bool {
        // The tasks of a copied pool are refused. And who delivers must not wait for a delivery.
        if self.max_queued.is_none() || !self.is_ours() {
            return true;
        }
        let wait = wait && !IS_DELIVERING.with(Cell::get);
        let mut core = self.lock();
        while !self.is_roomy(&core) {
            if !wait {
                return false;
            }
            core.room_is_awaited(true);
            core = self.room.wait(core).unwrap_or_else(PoisonError::into_inner);
            core.room_is_awaited(false);
        }
        true
    }

    /// Whether this process is the one that the pool belongs to, and not a fork of it.
    pub(super) fn is_ours(&self) -> bool {
        self.fork_depth == crate::process::fork::depth()
    }

    pub(super) fn is_over(&self, core: &Core) -> bool {
        core.is_over() && self.delivering.load(Ordering::SeqCst) == 0
    }
}
