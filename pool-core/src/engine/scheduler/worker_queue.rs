//! What the scheduler knows of the worker of one slot.
//!
//! ```text
//!         up          reserve
//! Down ---------> Active <------> Reserved
//!  ^               | |    release    | |
//!  |               | | dismiss       | |
//!  | down          | +--> Dismissed <+ |
//!  +-- (any)       |          |        |
//!                  +----------+--------+---> Retiring   (retire)
//!                  +----------+--------+---> GivenUp    (give_up)
//! ```
//!
//! A transition from a wrong state panics in a build with debug assertions, and does nothing in
//! others. Three things are known beside the state, and begin anew with each [`WorkerQueue::up`]:
//! whether it prepares, whether its ring is full, and how far it is with what was taken back.

use std::collections::VecDeque;

use crate::engine::work_unit::{InFlight, WorkUnit};

/// How much work, in nanoseconds, a worker may have waiting for it: enough that it does not run
/// dry while the parent does something else, little enough to be taken back cheaply.
pub(super) const CREDIT_NS: u64 = 400_000;
/// What it costs to wake a worker, in nanoseconds.
const WAKE_NS: u64 = 20_000;
/// The most units that a worker may have at a time.
const MAX_IN_FLIGHT: u64 = 256;

/// See the module.
pub(super) struct WorkerQueue<U: WorkUnit> {
    state: QueueState,
    /// It runs what must come before its first task.
    is_preparing: bool,
    /// It cannot take more now: the last unit is not wholly in its ring.
    is_choked: bool,
    reclaim: Reclaim,
    pub(super) in_flight: VecDeque<InFlight<U>>,
    /// Items handed to this worker, ever.
    pub(super) handed: u64,
    /// How many more units it may get before it is replaced.
    pub(super) tasks_left: Option<u64>,
    /// Smoothed time that one unit takes it, in nanoseconds; 0 until measured.
    pub(super) unit_ns: u64,
    /// Since when its worker is not known to have got ahead, in nanoseconds; `None`: nobody has
    /// asked for the time since it has.
    pub(super) stalled_since: Option<u64>,
    /// What it was handed last was for its position alone. Then it is somebody else's turn.
    pub(super) had_pinned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueueState {
    /// There is no worker that was reached.
    Down,
    /// It may be given units.
    Active,
    /// It waits for another one to go, and gets nothing before.
    Reserved,
    /// It is to go when it has finished what it runs, and gets nothing more.
    Dismissed,
    /// It was told to go, and has nothing any more.
    Retiring,
    /// It is dead or as good as dead: it gets nothing more, and what it has comes back when it is
    /// down.
    GivenUp,
}

/// What was taken back from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reclaim {
    /// Nothing.
    None,
    /// All behind the item with this number, and it has not passed over all of that yet.
    Passing(u64),
    /// It has passed over that.
    Passed(u64),
}

/// States and transitions.
impl<U: WorkUnit> WorkerQueue<U> {
    pub(super) fn new() -> Self {
        Self {
            state: QueueState::Down,
            is_preparing: false,
            is_choked: false,
            reclaim: Reclaim::None,
            in_flight: VecDeque::new(),
            handed: 0,
            tasks_left: None,
            unit_ns: 0,
            stalled_since: None,
            had_pinned: false,
        }
    }

    /// A wrong state for a transition.
    #[cold]
    fn refuse(&self, transition: &str) {
        debug_assert!(false, "{transition} in the state {:?}", self.state);
    }

    /// Down: there is a worker, which may be given so many units.
    pub(super) fn up(&mut self, max_tasks: Option<u64>) {
        if self.state != QueueState::Down || !self.is_idle() {
            return self.refuse("up");
        }
        *self = Self {
            state: QueueState::Active,
            tasks_left: max_tasks,
            ..Self::new()
        };
    }

    /// Active: it gets nothing before it is released.
    pub(super) fn reserve(&mut self) {
        if self.state != QueueState::Active {
            return self.refuse("reserve");
        }
        self.state = QueueState::Reserved;
    }

    /// Reserved: it is active from now on. In other states that is of no importance: a worker that
    /// comes up later is active then, and one that goes is not held up.
    pub(super) fn release(&mut self) {
        if self.state == QueueState::Reserved {
            self.state = QueueState::Active;
        }
    }

    /// Active or reserved: it gets nothing more, and is to go when it has nothing to do. In other
    /// states it is so already, or there is no worker. Says whether it has something that should be
    /// taken back for that.
    pub(super) fn dismiss(&mut self) -> bool {
        let has_waiting = !self.is_passing() && self.is_waiting();
        match self.state {
            QueueState::Active | QueueState::Reserved => {
                self.state = QueueState::Dismissed;
                has_waiting
            }
            QueueState::GivenUp => has_waiting,
            QueueState::Down | QueueState::Dismissed | QueueState::Retiring => false,
        }
    }

    /// It is dead, or as good as dead. In other states than those of a worker that is up it gets
    /// nothing anyway.
    pub(super) fn give_up(&mut self) {
        if self.is_up() {
            self.state = QueueState::GivenUp;
        }
    }

    /// Up, with nothing to do: it was told to go.
    pub(super) fn retire(&mut self) {
        if !self.is_up() || !self.is_idle() {
            return self.refuse("retire");
        }
        self.state = QueueState::Retiring;
    }

    /// Takes out the unit that was handed out first.
    // See `Scheduler::next_queued`.
    #[inline(never)]
    pub(super) fn take_first(&mut self) -> Option<InFlight<U>> {
        self.in_flight.pop_front()
    }

    /// Whether there is a worker that goes on, at least until it has finished what it has.
    pub(super) fn is_up(&self) -> bool {
        matches!(
            self.state,
            QueueState::Active | QueueState::Reserved | QueueState::Dismissed
        )
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.state == QueueState::Dismissed
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.state == QueueState::Retiring
    }
}

/// What keeps a worker from taking more.
impl<U: WorkUnit> WorkerQueue<U> {
    /// Idle: what it is handed next must come before its first task.
    pub(super) fn prepare(&mut self) {
        if self.state == QueueState::Down || !self.is_idle() || self.is_preparing {
            return self.refuse("prepare");
        }
        self.is_preparing = true;
    }

    pub(super) fn is_preparing(&self) -> bool {
        self.is_preparing
    }

    /// It has finished a unit. Says whether that was one that came before its first task.
    pub(super) fn has_finished(&mut self) -> bool {
        std::mem::take(&mut self.is_preparing)
    }

    /// The unit that it was handed last is not wholly in its ring.
    pub(super) fn choke(&mut self) {
        self.is_choked = true;
    }

    /// All that it was handed is in its ring.
    pub(super) fn unchoke(&mut self) {
        self.is_choked = false;
    }

    /// All that it was handed behind the item with this number was taken back.
    pub(super) fn begin_reclaim(&mut self, begun: u64) {
        if self.is_passing() || self.state == QueueState::Down {
            return self.refuse("begin_reclaim");
        }
        self.reclaim = Reclaim::Passing(begun.min(self.handed));
    }

    /// It has passed over what was taken back.
    pub(super) fn finish_reclaim(&mut self) {
        match self.reclaim {
            Reclaim::Passing(last) => self.reclaim = Reclaim::Passed(last),
            Reclaim::None | Reclaim::Passed(_) => self.refuse("finish_reclaim"),
        }
    }

    /// Whether it has not passed over all yet that was taken back.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.reclaim, Reclaim::Passing(_))
    }

    /// The number of the last item that it had begun when something was taken back.
    pub(super) fn last_allowed(&self) -> u64 {
        match self.reclaim {
            Reclaim::None => 0,
            Reclaim::Passing(last) | Reclaim::Passed(last) => last,
        }
    }
}

/// What it has.
impl<U: WorkUnit> WorkerQueue<U> {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether it has had all that it may.
    pub(super) fn is_used_up(&self) -> bool {
        self.tasks_left == Some(0)
    }

    #[inline]
    pub(super) fn may_take(&self) -> bool {
        self.state == QueueState::Active
            && !self.is_passing()
            && !self.is_preparing
            && !self.is_choked
            && !self.is_used_up()
    }

    /// Whether what waits in it may be taken back.
    pub(super) fn may_give(&self) -> bool {
        self.is_up() && !self.is_passing() && self.is_waiting()
    }

    /// Whether no other worker could have what waits in it.
    pub(super) fn has_only_pinned(&self) -> bool {
        self.had_pinned && self.in_flight.iter().all(|it| it.unit.position().is_some())
    }

    /// Whether it should go now; `over`: there is no more work.
    pub(super) fn is_superfluous(&self, over: bool) -> bool {
        self.is_up()
            && self.is_idle()
            && !self.is_passing()
            && (over || self.is_dismissed() || self.is_used_up())
    }

    /// Whether it is at work and will have done everything, and one unit more, before another
    /// worker could be awake.
    pub(super) fn is_nearly_through(&self) -> bool {
        let units = self.in_flight.len() as u64;
        let done_ns = self.unit_ns.saturating_mul(units + 1);
        self.may_take() && (1..MAX_IN_FLIGHT).contains(&units) && (1..=WAKE_NS).contains(&done_ns)
    }

    pub(super) fn credit(&self) -> u64 {
        let units = CREDIT_NS.checked_div(self.unit_ns);
        units.map_or(2, |units| units.clamp(2, MAX_IN_FLIGHT))
    }

    /// Whether there are items that have not begun, as far as is known.
    pub(super) fn is_waiting(&self) -> bool {
        let open = self.in_flight.iter().find(|flight| !flight.is_done());
        let (Some(open), Some(last)) = (open, self.in_flight.back()) else {
            return false;
        };
        // The first without an outcome is likely to run; where a look showed that the worker was
        // further on, that is known better.
        let begun = self
            .last_allowed()
            .max(open.first + u64::from(open.done) + 1);
        last.first + u64::from(last.unit.count()) > begun
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Some items of which nothing is known.
    struct Items(u32);

    impl WorkUnit for Items {
        type Outcomes = ();

        fn count(&self) -> u32 {
            self.0
        }

        fn split(self, at: u32) -> (Self, Self) {
            (Self(at), Self(self.0 - at))
        }

        fn priority(&self) -> i32 {
            0
        }

        fn is_refused(&self) -> bool {
            false
        }

        fn outcomes(&self) {}
    }

    type Queue = WorkerQueue<Items>;

    const STATES: [QueueState; 6] = [
        QueueState::Down,
        QueueState::Active,
        QueueState::Reserved,
        QueueState::Dismissed,
        QueueState::Retiring,
        QueueState::GivenUp,
    ];

    /// A queue in this state.
    fn queue(state: QueueState) -> Queue {
        let mut queue = Queue::new();
        if state != QueueState::Down {
            queue.up(None);
        }
        match state {
            QueueState::Down | QueueState::Active => {}
            QueueState::Reserved => queue.reserve(),
            QueueState::Dismissed => assert!(!queue.dismiss()),
            QueueState::Retiring => queue.retire(),
            QueueState::GivenUp => queue.give_up(),
        }
        assert_eq!(queue.state, state);
        queue
    }

    fn hand(queue: &mut Queue, items: u32) {
        queue.in_flight.push_back(InFlight {
            unit: Items(items),
            outcomes: (),
            first: queue.handed,
            done: 0,
        });
        queue.handed += u64::from(items);
    }

    /// Does it, and says whether that was refused.
    fn is_refused(queue: &mut Queue, transition: impl FnOnce(&mut Queue)) -> bool {
        catch_unwind(AssertUnwindSafe(|| transition(queue))).is_err()
    }

    type Transition = fn(&mut Queue);

    /// What each transition makes of each of `STATES`; `None`: it is refused, and the state stays.
    const TRANSITIONS: [(&str, Transition, [Option<QueueState>; 6]); 6] = {
        use QueueState::{Active, Dismissed, Down, GivenUp, Reserved, Retiring};
        [
            (
                "up",
                |queue| queue.up(Some(7)),
                [Some(Active), None, None, None, None, None],
            ),
            (
                "reserve",
                Queue::reserve,
                [None, Some(Reserved), None, None, None, None],
            ),
            (
                "release",
                Queue::release,
                [
                    Some(Down),
                    Some(Active),
                    Some(Active),
                    Some(Dismissed),
                    Some(Retiring),
                    Some(GivenUp),
                ],
            ),
            (
                "dismiss",
                |queue| assert!(!queue.dismiss(), "it has nothing"),
                [
                    Some(Down),
                    Some(Dismissed),
                    Some(Dismissed),
                    Some(Dismissed),
                    Some(Retiring),
                    Some(GivenUp),
                ],
            ),
            (
                "give_up",
                Queue::give_up,
                [
                    Some(Down),
                    Some(GivenUp),
                    Some(GivenUp),
                    Some(GivenUp),
                    Some(Retiring),
                    Some(GivenUp),
                ],
            ),
            (
                "retire",
                Queue::retire,
                [
                    None,
                    Some(Retiring),
                    Some(Retiring),
                    Some(Retiring),
                    None,
                    None,
                ],
            ),
        ]
    };

    #[test]
    fn each_transition_from_each_state() {
        for (name, transition, expected) in TRANSITIONS {
            for (before, expected) in STATES.into_iter().zip(expected) {
                let mut queue = queue(before);
                let refused = is_refused(&mut queue, transition);
                let is_wrong = expected.is_none() && cfg!(debug_assertions);
                assert_eq!(refused, is_wrong, "{name} from {before:?}");
                assert_eq!(
                    queue.state,
                    expected.unwrap_or(before),
                    "{name} from {before:?}"
                );
            }
        }
    }

    #[test]
    fn only_an_active_worker_is_given_units_and_only_one_that_goes_on_gives_some() {
        for state in STATES {
            let mut queue = queue(state);
            assert_eq!(queue.may_take(), state == QueueState::Active, "{state:?}");
            hand(&mut queue, 3);
            let goes_on = !matches!(
                state,
                QueueState::Down | QueueState::Retiring | QueueState::GivenUp
            );
            assert_eq!(queue.may_give(), goes_on, "{state:?}");
        }
    }

    #[test]
    fn a_worker_takes_nothing_while_it_prepares_is_choked_or_passes_over_items() {
        let mut queue = queue(QueueState::Active);
        queue.prepare();
        assert!(!queue.may_take() && queue.is_preparing());
        assert!(queue.has_finished(), "it was the first unit");
        assert!(queue.may_take() && !queue.has_finished());
        queue.choke();
        assert!(!queue.may_take());
        queue.unchoke();
        assert!(queue.may_take());
        hand(&mut queue, 3);
        queue.begin_reclaim(2);
        assert!(!queue.may_take() && !queue.may_give() && !queue.is_superfluous(true));
        queue.finish_reclaim();
        assert!(queue.may_take());
        assert_eq!(queue.last_allowed(), 2, "what was begun then is known");
    }

    /// A worker may say that it has begun more than it has.
    #[test]
    fn what_a_worker_says_is_bounded_by_what_it_was_handed() {
        let mut queue = queue(QueueState::Active);
        hand(&mut queue, 3);
        queue.begin_reclaim(u64::MAX);
        assert_eq!(queue.last_allowed(), 3);
    }

    #[test]
    fn a_wrong_order_is_refused() {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut queue = queue(QueueState::Active);
        assert!(is_refused(&mut queue, Queue::finish_reclaim), "of nothing");
        hand(&mut queue, 1);
        assert!(is_refused(&mut queue, Queue::prepare), "behind a task");
        assert!(is_refused(&mut queue, Queue::retire), "with a task");
        queue.begin_reclaim(1);
        let again = is_refused(&mut queue, |queue| queue.begin_reclaim(1));
        assert!(again, "what was taken back is not there");
    }

    #[test]
    fn a_worker_that_is_dismissed_says_whether_something_waits() {
        let mut queue = queue(QueueState::Active);
        hand(&mut queue, 1);
        assert!(!queue.dismiss(), "that runs");
        let mut queue = self::queue(QueueState::Reserved);
        hand(&mut queue, 2);
        assert!(queue.dismiss(), "one waits behind that");
        assert!(!queue.dismiss(), "once");
    }

    #[test]
    fn a_new_worker_has_nothing_of_the_one_before() {
        let mut queue = queue(QueueState::Active);
        queue.choke();
        queue.prepare();
        queue.unit_ns = 5;
        queue = Queue::new();
        queue.up(Some(1));
        assert!(queue.may_take() && queue.unit_ns == 0);
        queue.tasks_left = Some(0);
        assert!(!queue.may_take() && queue.is_superfluous(false));
    }
}
