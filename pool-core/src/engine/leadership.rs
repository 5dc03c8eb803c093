//! Who leads, which threads would, and who looks into the rings: what a thread needs to become the
//! [`leader`](super::leader), and to be woken.

use std::io;
use std::ptr;
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{thread, thread_number};
use crate::sys::{self, Event};

/// How long the leader looks for records before it sleeps, at most: a little longer than
/// it costs to wake a sleeper, which is the most that looking can save.
pub(super) const MAX_SPIN_NS: u32 = 50_000;
/// The same at least, where looking has been in vain for a while: because tasks take longer, or
/// because others need the processor that the worker should run on.
const MIN_SPIN_NS: u32 = 1_000;

/// How long there may be no leader while a thread fills a chunk, or is expected to wait for
/// results: after that the supervisor looks into the rings.
pub(super) const ABSENCE_NS: u64 = 500_000;
/// The same where one has led again and again: each look costs the processor of a worker.
const LONG_ABSENCE_NS: u64 = 8_000_000;

/// How soon the supervisor looks again for what it should hear and cannot, in nanoseconds.
const HEAR_AGAIN_NS: u64 = 1_000_000;

/// What looks into the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RingWatcher {
    /// A thread that is awake: nobody needs to ring.
    Polling,
    /// A thread that waits for results, and sleeps on the bells.
    Sleeping,
    /// The supervisor, which sleeps on the bells.
    Supervisor,
    /// The supervisor, which looks again in a moment without being rung for.
    Coalescing,
    /// Nobody: those that wait for results are on their way.
    None,
}

impl RingWatcher {
    pub(super) fn wants_bells(self) -> bool {
        matches!(self, Self::Sleeping | Self::Supervisor)
    }
}

/// What the leader has.
pub(super) struct Leadership {
    /// Wakes the leader while it sleeps on the bells.
    leader_wakeup: Arc<Event>,
    /// How long the leader looks for records before it sleeps, in nanoseconds.
    spin: AtomicU32,
}

/// Whether a thread leads, and which threads would: a part of the core.
#[derive(Default)]
pub(super) struct LeadershipState {
    /// The thread that leads, as [`thread_number`] names it; 0: none does.
    leader: usize,
    /// Threads that wait for something and could lead.
    waiting: Vec<Arc<Parker>>,
    /// Whether the supervisor hears the bells.
    is_heard: bool,
    /// When to try again what could not be changed in that, in nanoseconds.
    hear_again: Option<u64>,
    /// When the supervisor wakes next, in nanoseconds.
    supervisor_wakes: Option<u64>,
    stand_in: StandIn,
    /// When the supervisor looks into the open chunks, even if other threads do, in nanoseconds.
    ask_at: Option<u64>,
}

/// Whether the supervisor leads in the place of a thread that should come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum StandIn {
    /// It does not, and no thread is expected.
    #[default]
    NotNeeded,
    /// A thread is expected: at this time, in nanoseconds, the supervisor looks whether one has
    /// led meanwhile, for which there was so much time.
    Expecting {
        until: u64,
        absence: u64,
        has_led: bool,
    },
    /// It does, until a thread leads.
    StandsIn,
}

impl StandIn {
    fn expect_from(now: u64, absence: u64) -> Self {
        Self::Expecting {
            until: now + absence,
            absence,
            has_led: false,
        }
    }

    /// A thread leads.
    fn leader_came(&mut self) {
        match self {
            Self::Expecting { has_led, .. } => *has_led = true,
            Self::NotNeeded | Self::StandsIn => *self = Self::NotNeeded,
        }
    }

    /// When the supervisor looks whether a thread has come, in nanoseconds.
    fn due(self) -> Option<u64> {
        match self {
            Self::Expecting { until, .. } => Some(until),
            Self::NotNeeded | Self::StandsIn => None,
        }
    }
}

/// Who leads.
impl LeadershipState {
    #[inline]
    pub(super) fn has_leader(&self) -> bool {
        self.leader != 0
    }

    /// Whether this thread leads. It then runs something of the user's, such as a destructor.
    #[inline]
    pub(super) fn leads_here(&self) -> bool {
        self.leader == thread_number()
    }

    /// Nobody leads: this thread does from now on.
    pub(super) fn take(&mut self) {
        debug_assert!(!self.has_leader(), "one thread leads");
        self.leader = thread_number();
        self.stand_in.leader_came();
    }

    /// The thread that leads does not any more.
    pub(super) fn release(&mut self) {
        debug_assert!(self.has_leader(), "a thread leads");
        self.leader = 0;
    }

    /// Another thread leads; this one waits, and could be the next.
    pub(super) fn follow(&mut self, parker: Arc<Parker>) {
        debug_assert!(self.has_leader(), "nobody leads: it should itself");
        self.waiting.push(parker);
    }

    /// This thread does not wait any more. Says whether it was offered the leadership meanwhile.
    pub(super) fn stop_following(&mut self, parker: &Arc<Parker>) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|other| !Arc::ptr_eq(other, parker));
        self.waiting.len() == before
    }

    /// Nobody leads: offers that to a thread that waits. `false`: there is none.
    pub(super) fn offer(&mut self) -> bool {
        debug_assert!(!self.has_leader(), "one thread leads");
        let parker = self.waiting.pop();
        if let Some(parker) = &parker {
            parker.notify();
        }
        parker.is_some()
    }
}

/// Who stands in for a thread that should lead and does not come.
impl LeadershipState {
    /// A thread should come to lead: the supervisor looks after a while whether one has.
    pub(super) fn expect_leader(&mut self) {
        if self.stand_in == StandIn::NotNeeded {
            self.stand_in = StandIn::expect_from(sys::now_ns(), ABSENCE_NS);
        }
    }

    /// Supervisor: stands in for a thread that should lead, if it is time for that.
    pub(super) fn stand_in_if_due(&mut self, now: u64) {
        let StandIn::Expecting {
            until,
            absence,
            has_led,
        } = self.stand_in
        else {
            return;
        };
        if until > now {
            return;
        }
        self.stand_in = if has_led {
            // It comes and goes, and will do so again. This thread looks by itself then, and is not
            // woken to be told so.
            StandIn::expect_from(now, (2 * absence).min(LONG_ABSENCE_NS))
        } else if self.has_leader() {
            // The thread that stops leading sees to what comes then.
            StandIn::NotNeeded
        } else {
            StandIn::StandsIn
        };
    }

    /// Whether the supervisor stands in.
    pub(super) fn supervisor_stands_in(&self) -> bool {
        self.stand_in == StandIn::StandsIn
    }

    /// The supervisor is to look into the open chunks after a while. `false`: it is to already.
    pub(super) fn ask_later(&mut self) -> bool {
        let is_new = self.ask_at.is_none();
        if is_new {
            self.ask_at = Some(sys::now_ns() + ABSENCE_NS);
        }
        is_new
    }

    /// Supervisor: whether it is time to look into the open chunks, which is to be done once.
    pub(super) fn is_time_to_ask(&mut self, now: u64) -> bool {
        self.ask_at.take_if(|at| *at <= now).is_some()
    }
}

/// What the supervisor hears, and when it wakes.
impl LeadershipState {
    /// Whether the supervisor hears the bells.
    #[inline]
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The supervisor hears the bells from now on, or does not any more.
    pub(super) fn hears(&mut self, is_heard: bool) {
        debug_assert!(self.is_heard != is_heard, "that changes");
        self.is_heard = is_heard;
        self.hear_again = None;
    }

    /// That could not be changed, and is to be tried again soon.
    pub(super) fn hears_as_before(&mut self) {
        self.hear_again = Some(sys::now_ns() + HEAR_AGAIN_NS);
    }

    /// It is tried again where it is still needed.
    pub(super) fn hear_again(&mut self) {
        self.hear_again = None;
    }

    /// The supervisor goes to sleep until then, in nanoseconds, at most.
    pub(super) fn supervisor_sleeps(&mut self, until: Option<u64>) {
        self.supervisor_wakes = until;
    }

    /// The supervisor was woken: it asks for all times before it sleeps again.
    pub(super) fn supervisor_was_woken(&mut self) {
        self.supervisor_wakes = Some(0);
    }

    /// Whether the supervisor would sleep longer than until this time.
    pub(super) fn oversleeps(&self, time: Option<u64>) -> bool {
        match (time, self.supervisor_wakes) {
            (Some(timer), Some(wakes)) => timer < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// When the supervisor has something to do of all this, in nanoseconds; `u64::MAX`: never.
    pub(super) fn next_time(&self) -> u64 {
        let times = [self.stand_in.due(), self.ask_at, self.hear_again];
        let soonest = |next: u64, time: Option<u64>| next.min(time.unwrap_or(u64::MAX));
        times.into_iter().fold(u64::MAX, soonest)
    }
}

impl Leadership {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            leader_wakeup: Arc::new(Event::new()?),
            spin: AtomicU32::new(MAX_SPIN_NS),
        })
    }

    /// Wakes the leader while it sleeps on the bells.
    pub(super) fn wakeup(&self) -> &Arc<Event> {
        &self.leader_wakeup
    }

    /// The leader looks again, if it sleeps or is about to.
    pub(super) fn wake_leader(&self) {
        self.leader_wakeup.set();
    }

    /// What it was woken for is known.
    pub(super) fn clear_wakeup(&self) {
        self.leader_wakeup.clear();
    }

    /// How long the leader looks for records before it sleeps.
    pub(super) fn spin(&self) -> Duration {
        Duration::from_nanos(self.spin.load(Ordering::Relaxed).into())
    }

    /// The leader has looked for records, in vain or not: it looks longer or shorter next time.
    pub(super) fn looked(&self, found: bool) {
        let spin = self.spin.load(Ordering::Relaxed);
        let spin = if found { spin * 2 } else { spin / 2 };
        self.spin
            .store(spin.clamp(MIN_SPIN_NS, MAX_SPIN_NS), Ordering::Relaxed);
    }
}

/// One waiting thread: what wakes it, wherever it sleeps.
pub(super) struct Parker {
    state: AtomicU32,
    /// Threads keep their parkers, so a parker must not keep its pool's descriptor: a forked copy
    /// of the thread would close it when it exits.
    leader_wakeup: Weak<Event>,
    thread: thread::Thread,
}

/// The thread runs.
const AWAKE: u32 = 0;
/// It was woken and has not noticed.
const NOTIFIED: u32 = 1;
/// It sleeps in `park`.
const PARKED: u32 = 2;
/// It sleeps on the bells.
pub(super) const ON_BELLS: u32 = 3;

impl Parker {
    pub(super) fn new(leader_wakeup: &Arc<Event>) -> Self {
        Self {
            state: AtomicU32::new(AWAKE),
            leader_wakeup: Arc::downgrade(leader_wakeup),
            thread: thread::current(),
        }
    }

    fn notify(&self) {
        match self.state.swap(NOTIFIED, Ordering::AcqRel) {
            PARKED => self.thread.unpark(),
            // Who sleeps there is inside of the pool, so there is one.
            ON_BELLS => {
                if let Some(wakeup) = self.leader_wakeup.upgrade() {
                    wakeup.set();
                }
            }
            _ => {}
        }
    }

    /// Whether it is a thread of the pool whose leader this wakes.
    pub(super) fn is_of(&self, leader_wakeup: &Arc<Event>) -> bool {
        ptr::eq(self.leader_wakeup.as_ptr(), Arc::as_ptr(leader_wakeup))
    }

    /// Forgets a notification, and says whether there was one.
    pub(super) fn take(&self) -> bool {
        self.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Announces that the thread is going to sleep. `false`: it was notified and must not.
    pub(super) fn prepare(&self, sleep: u32) -> bool {
        self.state
            .compare_exchange(AWAKE, sleep, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Sleeps until notified or the deadline.
    pub(super) fn park(&self, deadline: Option<Instant>) {
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

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn parker() -> Arc<Parker> {
        Arc::new(Parker::new(&Arc::new(Event::new().expect("a descriptor"))))
    }

    #[test]
    fn a_thread_keeps_no_descriptor_of_a_pool_that_it_waited_in() {
        let event = Arc::new(Event::new().expect("a descriptor"));
        let parker = Parker::new(&event);
        assert!(parker.is_of(&event) && parker.prepare(ON_BELLS));
        parker.notify();
        assert!(parker.take());
        let event = Arc::into_inner(event).expect("the parker keeps none");
        drop(event);
        // Somebody may still have a waker of it.
        assert!(parker.prepare(ON_BELLS));
        parker.notify();
        assert!(parker.take());
    }

    #[test]
    fn the_leadership_is_offered_to_each_follower_once() {
        let (first, second) = (parker(), parker());
        let mut state = LeadershipState::default();
        state.take();
        state.follow(first.clone());
        state.follow(second.clone());
        assert!(!state.stop_following(&first), "nobody has offered it");
        state.release();
        assert!(state.offer());
        assert!(second.take(), "it was woken for that");
        assert!(state.stop_following(&second));
        assert!(!state.offer(), "nobody waits");
    }

    /// The supervisor stands in where no thread has led for a while, and not after one has.
    #[test]
    fn the_supervisor_stands_in_until_a_thread_leads() {
        let mut state = LeadershipState::default();
        state.expect_leader();
        let at = state.next_time();
        state.stand_in_if_due(at - 1);
        assert!(!state.supervisor_stands_in(), "it is not time");
        state.take();
        state.release();
        state.stand_in_if_due(at);
        assert!(!state.supervisor_stands_in(), "a thread has led");
        assert_eq!(state.next_time(), at + 2 * ABSENCE_NS, "it looks again");
        state.stand_in_if_due(at + 2 * ABSENCE_NS);
        assert!(state.supervisor_stands_in());
        state.take();
        assert!(!state.supervisor_stands_in(), "a thread has come");
    }

    /// The supervisor looks less and less often while threads come and go, and not at all while
    /// one leads all the time.
    #[test]
    fn looks_become_rare_while_threads_lead() {
        let mut state = LeadershipState::default();
        state.expect_leader();
        let mut last = state.next_time() - ABSENCE_NS;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            state.take();
            state.release();
            let next = state.next_time();
            pauses.push((next - last) / ABSENCE_NS);
            state.stand_in_if_due(next);
            last = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16]);
        state.take();
        state.stand_in_if_due(state.next_time());
        state.stand_in_if_due(state.next_time());
        assert_eq!(state.next_time(), u64::MAX, "the leader sees to it");
        state.release();
        state.expect_leader();
        state.stand_in_if_due(state.next_time());
        assert!(state.supervisor_stands_in(), "it is alert again");
    }

    #[test]
    fn the_supervisor_is_woken_once() {
        let mut state = LeadershipState::default();
        assert!(state.oversleeps(Some(5)));
        state.supervisor_was_woken();
        assert!(!state.oversleeps(Some(5)));
        state.supervisor_sleeps(Some(7));
        assert!(state.oversleeps(Some(5)) && !state.oversleeps(Some(8)));
    }

    #[test]
    fn what_the_supervisor_could_not_hear_is_tried_again() {
        let mut state = LeadershipState::default();
        state.hears(true);
        assert_eq!((state.is_heard(), state.next_time()), (true, u64::MAX));
        state.hears_as_before();
        assert!(state.is_heard() && state.next_time() < u64::MAX);
        state.hears(false);
        assert_eq!((state.is_heard(), state.next_time()), (false, u64::MAX));
    }

    #[test]
    fn open_chunks_are_looked_into_once_for_each_wish() {
        let mut state = LeadershipState::default();
        assert!(!state.is_time_to_ask(u64::MAX));
        assert!(state.ask_later() && !state.ask_later());
        assert!(!state.is_time_to_ask(0));
        assert!(state.is_time_to_ask(u64::MAX) && !state.is_time_to_ask(u64::MAX));
    }
}
