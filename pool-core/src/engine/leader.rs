//! Leader and followers: a thread that waits for a result drains the rings itself.
//!
//! At most one thread leads. It looks into the rings until what it waits for is there. Where a
//! processor is idle it spins for a while; then it sleeps on the bells, so that a result wakes
//! the thread that wants it and no other. The other waiting threads, the followers, sleep until
//! their result is delivered or the leadership is offered to them. While nobody leads, the
//! supervisor listens to the bells. See "Leader and followers" in `README.md`.
//!
//! The invariant, kept by [`Shared::restore_invariant`]: whenever the lock is free, nobody leads or
//! was offered the leadership, and there is work whose submitter does not come to lead, every
//! worker with work has been asked to ring, and the supervisor hears the bells. A `map` stops
//! leading whenever it encodes and decodes, and must not wake the supervisor each time.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::core::Core;
use super::leadership::{MAX_SPIN_NS, ON_BELLS, Parker, RingWatcher};
use super::published_tails::PublishedTails;
use super::shared::Shared;
use super::time_limits::until;
use super::token::{ALARM, BELLS};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{MutexGuard, thread_local};
use crate::sys::Errno;
use crate::sys::errno_of;
use crate::sys::{self, Event};
use crate::task::executor::Executor;
use crate::task::open_input::OpenInput;

/// What is over after that, sleep and waking included, would have been found by looking.
const SHORT_WAIT: Duration = Duration::from_nanos(2 * MAX_SPIN_NS as u64);
/// How often a thread looks for results that cannot be woken for them.
const BLIND_NAP: Duration = Duration::from_millis(1);

/// How often, at most, a thread looks for records before it leaves the rings to the supervisor.
const MAX_LOOKS: u32 = 16;

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
            Some(parker) if parker.is_of(leader_wakeup) => parker.clone(),
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

impl Shared {
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
            if !core.leadership().has_leader() {
                core.leadership().take();
                // Whatever happens, the leadership must be released.
                let _leave = ReleaseLeadership(self);
                return self.drive(core, poll, deadline);
            }
            if core.leadership().leads_here() {
                // What this thread delivers runs code of the user's, which waits for the pool. It
                // goes on leading meanwhile: nobody else does.
                return self.drive(core, poll, deadline);
            }
            let Sleeper { parker, waker, .. } = Sleeper::new(self.leadership.wakeup());
            core.leadership().follow(parker.clone());
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
            let was_offered = core.leadership().stop_following(&parker);
            if let Some(outcome) = outcome {
                if was_offered {
                    // Another thread must lead.
                    self.restore_invariant(&mut core);
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
            if published.is_some() && now - *idle_since.get_or_insert(now) < self.leadership.spin()
            {
                core = self.lock();
                continue;
            }
            let sleeper = sleeper.get_or_insert_with(|| Sleeper::new(self.leadership.wakeup()));
            if poll(Some(&sleeper.waker)) {
                return true;
            }
            self.sleep_on_bells(sleeper, deadline);
            if let Some(since) = idle_since.take() {
                // Whether to look longer would have been better is known only now.
                self.leadership.looked(sys::now() - since < SHORT_WAIT);
            }
            core = self.lock();
        }
    }

    /// Leader: sleeps until a worker rings, a timer is due, the deadline is over, or
    /// somebody notifies the parker.
    fn sleep_on_bells(&self, sleeper: &mut Sleeper, deadline: Option<Instant>) {
        let Sleeper { parker, ready, .. } = sleeper;
        let timeout;
        let open;
        {
            let mut core = self.lock();
            // Asked first and looked then, as the workers publish first and look for the wish
            // then: a result either is seen here or rings.
            core.attend(RingWatcher::Sleeping);
            fence(Ordering::SeqCst);
            if core.drain_and_dispatch() || core.has_deliveries() || !parker.prepare(ON_BELLS) {
                core.attend(RingWatcher::Polling);
                parker.take();
                self.deliver(core);
                return;
            }
            self.hear_bells(&mut core, false);
            open = core.open_for_idle();
            // A launch that is due is not ours to wait for: it would be due again and again.
            let launches = core.next_supervisor_timer();
            self.alarm_before(&mut core, launches);
            let timer = core.next_leader_timer().map(until);
            let deadline = deadline.map(|deadline| deadline.saturating_duration_since(sys::now()));
            timeout = match (timer, deadline) {
                (Some(timer), Some(deadline)) => Some(timer.min(deadline)),
                (timer, deadline) => timer.or(deadline),
            };
        }
        self.ask_for_items(open);
        match self.bells.wait(ready, timeout) {
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
        core.leadership().release();
        self.restore_invariant(&mut core);
        self.deliver(core);
    }

    /// Keeps the invariant of the module. To be called with the lock, after everything that
    /// gives a worker something to do or ends the leadership.
    pub(super) fn restore_invariant(&self, core: &mut Core) {
        if core.leadership().has_leader() {
            // It sees to everything.
        } else if !core.is_busy() {
            core.forget_orphans();
            if core.has_open() {
                core.leadership().expect_leader();
            }
        } else if core.leadership().offer() {
            // It comes.
        } else if !core.needs_supervision() {
            core.attend(RingWatcher::None);
            core.leadership().expect_leader();
        } else if !core.is_heard_by_supervisor() {
            self.hear_bells(core, true);
            // What comes after a worker has seen the wish rings, so that one look is enough and
            // this loop merely saves wake-ups; a worker that writes all the time must not keep the
            // lock from everybody.
            for _ in 0..MAX_LOOKS {
                // As in `sleep_on_bells`.
                core.attend(RingWatcher::Supervisor);
                fence(Ordering::SeqCst);
                if !core.drain_and_dispatch() {
                    break;
                }
            }
        }
        self.keep_time(core);
    }

    /// Takes what is there of the chunks that are being filled, for a worker that has nothing to
    /// do, and sees to it that what comes next is submitted at once.
    ///
    /// It lets go of the inputs: the caller goes to sleep, for as long as it likes, and an input
    /// keeps what its call has, such as the span that it was made in and shared memory.
    pub(super) fn ask_for_items(&self, open: Vec<Arc<dyn OpenInput>>) {
        for chunk in open.into_iter().filter_map(|open| open.ask()) {
            self.submit(chunk);
        }
    }

    /// Sees to it that the supervisor wakes when the next timer is due.
    pub(super) fn keep_time(&self, core: &mut Core) {
        // Balance is the leader's business, if there is one and it does not sleep.
        let rebalance = !core.is_led_awake();
        let next = core.next_timer(rebalance);
        self.alarm_before(core, next);
    }

    /// Wakes the supervisor if it would sleep longer than until this time.
    fn alarm_before(&self, core: &mut Core, time: Option<u64>) {
        if core.leadership().oversleeps(time) {
            self.alarm.set();
            core.leadership().supervisor_was_woken();
        }
    }

    /// Lets the supervisor hear the bells, or not.
    pub(super) fn hear_bells(&self, core: &mut Core, supervised: bool) {
        if core.leadership().is_heard() == supervised {
            return;
        }
        let done = if supervised {
            self.events.add_poller(&self.bells, BELLS)
        } else {
            self.events.delete_poller(&self.bells)
        };
        match done {
            Ok(()) => core.leadership().hears(supervised),
            // For want of memory. Until that is over, the supervisor looks now and then.
            Err(_) => core.leadership().hears_as_before(),
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

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;
    use crate::backend::config::PoolConfig;
    use crate::task::chunk::Chunk;
    use crate::worker::Settings;

    /// Otherwise every pool whose workers have an initializer would be looked after for ever, and
    /// its workers would ring for each result.
    #[test]
    fn a_pool_is_looked_after_until_it_has_nothing_to_do() {
        let config = PoolConfig::default().check().expect("it makes sense");
        let shared = Shared::new(config, "test").expect("descriptors");
        let mut core = shared.lock();
        assert!(!core.needs_supervision());
        core.listen_for_orphans();
        assert!(core.needs_supervision());
        shared.restore_invariant(&mut core);
        assert!(!core.needs_supervision());
        // It waits for a worker.
        core.listen_for_orphans();
        let entry = Settings::entry().expect("a function of this program");
        core.submit(Chunk::initializer(entry, Vec::new()));
        shared.restore_invariant(&mut core);
        assert!(core.needs_supervision());
    }
}
