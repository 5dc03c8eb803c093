//! Leader and followers: a thread that waits for a result drains the rings itself.
//!
//! At most one thread leads. It looks into the rings until what it waits for is there. Where a
//! processor is idle it spins for a while; then it sleeps on the doorbells, so that a result wakes
//! the thread that wants it and no other. The other waiting threads, the followers, sleep until
//! their result is delivered or the leadership is offered to them. While nobody leads, the
//! supervisor listens to the doorbells. See "Leader and followers" in `README.md`.
//!
//! The invariant, kept by [`Shared::settle`]: whenever the lock is free, nobody leads or was
//! offered the leadership, and there is work whose submitter does not come to lead, every worker
//! with work has been asked to ring, and the supervisor hears the doorbells. A `map` stops leading
//! whenever it encodes and decodes, and must not wake the supervisor each time.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::Shared;
use super::core::Core;
use super::published_tails::PublishedTails;
use super::supervisor::{ALARM, DOORBELLS};
use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{MutexGuard, thread, thread_local};
use crate::sys::errno_of;
use crate::sys::{self, Event};
use crate::task::executor::Executor;
use crate::task::open_input::OpenInput;

/// How long the leader looks for records before it sleeps, at most: a little longer than
/// it costs to wake a sleeper, which is the most that looking can save.
const MAX_SPIN_NS: u32 = 50_000;
/// What is over after that, sleep and waking included, would have been found by looking.
const SHORT_WAIT: Duration = Duration::from_nanos(2 * MAX_SPIN_NS as u64);
/// The same at least, where looking has been in vain for a while: because tasks take longer, or
/// because others need the processor that the worker should run on.
const MIN_SPIN_NS: u32 = 1_000;

/// How soon the supervisor looks again for what it should hear and cannot, in nanoseconds.
const HEAR_AGAIN_NS: u64 = 1_000_000;

/// How often a thread looks for results that cannot be woken for them.
const BLIND_NAP: Duration = Duration::from_millis(1);

/// How long there may be no leader while a thread fills a chunk, or is expected to wait for
/// results: after that the supervisor looks into the rings.
pub(super) const ABSENCE_NS: u64 = 500_000;

/// How often, at most, a thread looks for records before it leaves the rings to the supervisor.
const MAX_LOOKS: u32 = 16;

/// What looks into the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RingWatcher {
    /// A thread that is awake: nobody needs to ring.
    Polling,
    /// A thread that waits for results, and sleeps on the doorbells.
    Sleeping,
    /// The supervisor, which sleeps on the doorbells.
    Supervisor,
    /// The supervisor, which looks again in a moment without being rung for.
    Coalescing,
    /// Nobody: those that wait for results are on their way.
    None,
}

impl RingWatcher {
    pub(super) fn wants_doorbells(self) -> bool {
        matches!(self, Self::Sleeping | Self::Supervisor)
    }
}

/// What the leader has.
pub(super) struct Leadership {
    /// Wakes the leader while it sleeps on the doorbells.
    leader_wakeup: Arc<Event>,
    /// How long the leader looks for records before it sleeps, in nanoseconds.
    spin: AtomicU32,
}

/// Whether a thread leads, and which threads would: a part of the [`Core`].
#[derive(Default)]
pub(super) struct LeadershipState {
    pub(super) has_leader: bool,
    /// Threads that wait for something and could lead.
    waiting: Vec<Arc<Parker>>,
    /// Whether the supervisor hears the doorbells.
    pub(super) supervised: bool,
    /// When to try again what could not be changed in that, in nanoseconds.
    pub(super) hear_again: Option<u64>,
    /// When the supervisor wakes next, in nanoseconds.
    pub(super) supervisor_wakes: Option<u64>,
    /// When the supervisor asks whether any thread has led, in nanoseconds.
    pub(super) relief_at: Option<u64>,
    /// When the supervisor looks into the open chunks, even if other threads do, in nanoseconds.
    pub(super) ask_at: Option<u64>,
    /// A thread has led since that was set.
    was_taken: bool,
    /// The supervisor stands in for those who should come, until one does.
    pub(super) is_relieved: bool,
}

impl LeadershipState {
    fn take(&mut self) {
        self.has_leader = true;
        self.was_taken = true;
        self.is_relieved = false;
    }

    /// Supervisor: stands in for a thread that should lead, if it is time for that.
    pub(super) fn relieve(&mut self, now: u64) {
        if self.relief_at.is_none_or(|at| at > now) {
            return;
        }
        self.relief_at = None;
        if self.has_leader {
            // The thread that stops leading sees to what comes then.
        } else if self.was_taken {
            self.relief_at = Some(now + ABSENCE_NS);
            self.was_taken = false;
        } else {
            self.is_relieved = true;
        }
    }
}

impl Leadership {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            leader_wakeup: Arc::new(Event::new()?),
            spin: AtomicU32::new(MAX_SPIN_NS),
        })
    }

    /// The leader looks again, if it sleeps or is about to.
    pub(super) fn wake_leader(&self) {
        self.leader_wakeup.set();
    }

    /// What it was woken for is known.
    pub(super) fn clear_wakeup(&self) {
        self.leader_wakeup.clear();
    }

    /// The leader has looked for records, in vain or not: it looks longer or shorter next time.
    fn looked(&self, found: bool) {
        let spin = self.spin.load(Ordering::Relaxed);
        let spin = if found { spin * 2 } else { spin / 2 };
        self.spin
            .store(spin.clamp(MIN_SPIN_NS, MAX_SPIN_NS), Ordering::Relaxed);
    }
}

/// One waiting thread: what wakes it, wherever it sleeps.
struct Parker {
    state: AtomicU32,
    leader_wakeup: Arc<Event>,
    thread: thread::Thread,
}

/// The thread runs.
const AWAKE: u32 = 0;
/// It was woken and has not noticed.
const NOTIFIED: u32 = 1;
/// It sleeps in `park`.
const PARKED: u32 = 2;
/// It sleeps on the doorbells.
const ON_DOORBELLS: u32 = 3;

impl Parker {
    fn new(leader_wakeup: &Arc<Event>) -> Self {
        Self {
            state: AtomicU32::new(AWAKE),
            leader_wakeup: leader_wakeup.clone(),
            thread: thread::current(),
        }
    }

    fn notify(&self) {
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            PARKED => self.thread.unpark(),
            ON_DOORBELLS => self.leader_wakeup.set(),
            _ => {}
        }
    }

    /// Forgets a notification, and says whether there was one.
    fn take(&self) -> bool {
        self.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Announces that the thread is going to sleep. `false`: it was notified and must not.
    fn prepare(&self, sleep: u32) -> bool {
        self.state
            .compare_exchange(AWAKE, sleep, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Sleeps until notified or the deadline.
    fn park(&self, deadline: Option<Instant>) {
        if self.prepare(PARKED) {
            while self.state.load(Ordering::Acquire) == PARKED {
                match deadline {
                    None => thread::park(),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(sys::now());
                        if left.is_zero() {
                            break;
                        }
                        thread::park_timeout(left);
                    }
                }
            }
        }
        self.take();
    }
}

thread_local! {
    /// The thread's parker in the pool that it last waited in. It is used again, so that a handle
    /// that is asked again and again knows one waker and not many.
    static PARKER: RefCell<Option<Arc<Parker>>> = const { RefCell::new(None) };
}

/// What a waiting thread needs to sleep.
struct Sleeper {
    parker: Arc<Parker>,
    waker: Waker,
    ready: Vec<u64>,
}

impl Sleeper {
    fn new(leader_wakeup: &Arc<Event>) -> Self {
        let parker = PARKER.with(|cached| match &mut *cached.borrow_mut() {
            Some(parker) if Arc::ptr_eq(&parker.leader_wakeup, leader_wakeup) => parker.clone(),
            cached => cached.insert(Arc::new(Parker::new(leader_wakeup))).clone(),
        });
        // Whatever it was notified of before, nobody waits for that any more.
        parker.take();
        Self {
            waker: Waker::from(parker.clone()),
            parker,
            ready: Vec::new(),
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

impl Shared {
    /// Adds the descriptors that are there from the beginning to the pollers.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.events.add(&self.alarm, ALARM)?;
        self.doorbells.add(&*self.leadership.leader_wakeup, ALARM)?;
        Ok(())
    }

    /// See [`Executor::wait_until`].
    pub(super) fn lead_until(
        &self,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        if !self.is_ours() {
            // Nothing that the parent waits for will ever arrive in this copy of it.
            return poll(None);
        }
        loop {
            let mut core = self.lock();
            if !core.leadership.has_leader {
                core.leadership.take();
                // Whatever happens, the leadership must be released.
                let _leave = ReleaseLeadership(self);
                return self.drive(core, poll, deadline);
            }
            let Sleeper { parker, waker, .. } = Sleeper::new(&self.leadership.leader_wakeup);
            core.leadership.waiting.push(parker.clone());
            drop(core);
            let over = |poll: &mut dyn FnMut(Option<&Waker>) -> bool| {
                if poll(Some(&waker)) {
                    Some(true)
                } else if deadline.is_some_and(|deadline| deadline <= sys::now()) {
                    Some(false)
                } else {
                    None
                }
            };
            let mut outcome = over(poll);
            if outcome.is_none() {
                parker.park(deadline);
                outcome = over(poll);
            }
            let mut core = self.lock();
            let waiting = &mut core.leadership.waiting;
            let before = waiting.len();
            waiting.retain(|other| !Arc::ptr_eq(other, &parker));
            let was_offered = waiting.len() == before;
            if let Some(outcome) = outcome {
                if was_offered {
                    // Another thread must lead.
                    self.settle(&mut core);
                    self.deliver(core);
                }
                return outcome;
            }
        }
    }

    /// Leader: looks and sleeps until `poll` or the deadline says that it is enough.
    fn drive<'a>(
        &'a self,
        mut core: MutexGuard<'a, Core>,
        poll: &mut dyn FnMut(Option<&Waker>) -> bool,
        deadline: Option<Instant>,
    ) -> bool {
        let mut sleeper = None;
        let mut idle_since = None;
        core.attend(RingWatcher::Polling);
        loop {
            let news = core.drain_and_dispatch();
            let published = (!news && core.may_spin()).then(|| core.published());
            self.deliver(core);
            if poll(None) {
                return true;
            }
            if news {
                if idle_since.take().is_some() {
                    self.leadership.looked(true);
                }
                // A worker may see to it that there is always something new.
                if deadline.is_some_and(|deadline| deadline <= sys::now()) {
                    return false;
                }
                core = self.lock();
                continue;
            }
            if published.as_ref().is_some_and(PublishedTails::has_changed) {
                core = self.lock();
                continue;
            }
            let now = sys::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return false;
            }
            if published.is_some() {
                let spin = self.leadership.spin.load(Ordering::Relaxed);
                if now - *idle_since.get_or_insert(now) < Duration::from_nanos(spin.into()) {
                    core = self.lock();
                    continue;
                }
            }
            let sleeper =
                sleeper.get_or_insert_with(|| Sleeper::new(&self.leadership.leader_wakeup));
            if poll(Some(&sleeper.waker)) {
                return true;
            }
            self.sleep_on_doorbells(sleeper, deadline);
            if let Some(since) = idle_since.take() {
                // Whether to look longer would have been better is known only now.
                self.leadership.looked(sys::now() - since < SHORT_WAIT);
            }
            core = self.lock();
        }
    }

    /// Leader: sleeps until a worker rings, a timer is due, the deadline is over, or
    /// somebody notifies the parker.
    fn sleep_on_doorbells(&self, sleeper: &mut Sleeper, deadline: Option<Instant>) {
        let Sleeper { parker, ready, .. } = sleeper;
        let timeout;
        let open;
        {
            let mut core = self.lock();
            // Asked first and looked then, as the workers publish first and look for the wish
            // then: a result either is seen here or rings.
            core.attend(RingWatcher::Sleeping);
            fence(Ordering::SeqCst);
            if core.drain_and_dispatch()
                || core.notify.has_deliveries()
                || !parker.prepare(ON_DOORBELLS)
            {
                core.attend(RingWatcher::Polling);
                parker.take();
                self.deliver(core);
                return;
            }
            self.hear_doorbells(&mut core, false);
            open = core.open_for_idle();
            // A launch that is due is not ours to wait for: it would be due again and again.
            self.alarm_before(&core, core.next_errand());
            let timer = core.next_leader_timer().map(until);
            let deadline = deadline.map(|deadline| deadline.saturating_duration_since(sys::now()));
            timeout = match (timer, deadline) {
                (Some(timer), Some(deadline)) => Some(timer.min(deadline)),
                (timer, deadline) => timer.or(deadline),
            };
        }
        self.ask_for_items(&open);
        match self.doorbells.wait(ready, timeout) {
            // The program has closed what it does not know, and perhaps opened something else. The
            // workers are dead by that, and the supervisor may sleep for good.
            Err(error) if matches!(errno_of(&error), Some(Errno::BADF | Errno::INVAL)) => {
                drop(self.give_up(format!(
                    "the program has closed descriptors that the pool had open: {error}"
                )));
            }
            // A sandbox was put up around this thread. It then looks now and then.
            Err(_) => sys::nap(timeout.map_or(BLIND_NAP, |timeout| timeout.min(BLIND_NAP))),
            Ok(()) => {}
        }
        parker.take();
        let mut core = self.lock();
        if ready.contains(&ALARM) {
            self.leadership.clear_wakeup();
        }
        core.on_time();
        core.attend(RingWatcher::Polling);
        self.deliver(core);
    }

    /// Stops leading.
    fn leave(&self) {
        let mut core = self.lock();
        core.attend(RingWatcher::None);
        core.leadership.has_leader = false;
        self.settle(&mut core);
        self.deliver(core);
    }

    /// Keeps the invariant of the module. To be called with the lock, after everything that
    /// gives a worker something to do or ends the leadership.
    pub(super) fn settle(&self, core: &mut Core) {
        if !core.leadership.has_leader && !core.is_busy() && !core.open.is_empty() {
            self.await_absence(core);
        }
        if !core.leadership.has_leader && core.is_busy() {
            if let Some(parker) = core.leadership.waiting.pop() {
                parker.notify();
            } else if !core.needs_supervision() {
                core.attend(RingWatcher::None);
                self.await_absence(core);
            } else if !(core.leadership.supervised && core.is_supervised()) {
                self.hear_doorbells(core, true);
                // What comes after a worker has seen the wish rings, so that one look is enough
                // and this loop merely saves wake-ups; a worker that writes all the time must
                // not keep the lock from everybody.
                for _ in 0..MAX_LOOKS {
                    // As in `sleep_on_doorbells`.
                    core.attend(RingWatcher::Supervisor);
                    fence(Ordering::SeqCst);
                    if !core.drain_and_dispatch() {
                        break;
                    }
                }
            }
        }
        self.keep_time(core);
    }

    /// A thread should come to lead, but may be kept by an input, or by what the program does
    /// with results: the supervisor looks after a while whether that was so.
    fn await_absence(&self, core: &mut Core) {
        let state = &mut core.leadership;
        if !state.is_relieved && state.relief_at.is_none() {
            state.relief_at = Some(sys::now_ns() + ABSENCE_NS);
            state.was_taken = false;
        }
    }

    /// Takes what is there of the chunks that are being filled, for a worker that has nothing to
    /// do, and sees to it that what comes next is submitted at once.
    pub(super) fn ask_for_items(&self, open: &[Arc<dyn OpenInput>]) {
        for chunk in open.iter().filter_map(|open| open.ask()) {
            self.submit(chunk);
        }
    }

    /// Sees to it that the supervisor wakes when the next timer is due.
    pub(super) fn keep_time(&self, core: &Core) {
        // Balance is the leader's business, if there is one and it does not sleep.
        let rebalance = !(core.leadership.has_leader && core.is_awake());
        self.alarm_before(core, core.next_timer(rebalance));
    }

    /// Wakes the supervisor if it would sleep longer than until this time.
    fn alarm_before(&self, core: &Core, time: Option<u64>) {
        let sooner = match (time, core.leadership.supervisor_wakes) {
            (Some(timer), Some(wakes)) => timer < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.alarm.set();
        }
    }

    /// Lets the supervisor hear the doorbells, or not.
    pub(super) fn hear_doorbells(&self, core: &mut Core, supervised: bool) {
        if core.leadership.supervised == supervised {
            return;
        }
        let done = if supervised {
            self.events.add(&self.doorbells, DOORBELLS)
        } else {
            self.events.delete(&self.doorbells)
        };
        match done {
            Ok(()) => {
                core.leadership.supervised = supervised;
                core.leadership.hear_again = None;
            }
            // For want of memory. Until that is over, the supervisor looks now and then.
            Err(_) => core.leadership.hear_again = Some(sys::now_ns() + HEAR_AGAIN_NS),
        }
    }
}

/// Stops leading when it is dropped.
struct ReleaseLeadership<'a>(&'a Shared);

impl Drop for ReleaseLeadership<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// How long it is until a time of the monotonic clock.
pub(super) fn until(time: u64) -> Duration {
    Duration::from_nanos(time.saturating_sub(sys::now_ns()))
}
