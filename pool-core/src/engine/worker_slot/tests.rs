//! Each transition from each state, and what is known of a worker beside its state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use super::*;
use crate::backend::launcher::{Readiness, WorkerHandle};
use crate::backend::tie::Tie;
use crate::error::launch_error::LaunchError;
use crate::process::exit_status::ExitStatus;
use crate::shm::region::{Region, RingSizes};
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};

const RINGS: RingSizes = RingSizes::both(4096);

/// A worker of which there is a region only.
struct Nothing(Arc<Region>, OwnedFd);

impl WorkerHandle for Nothing {
    fn region(&self) -> Arc<Region> {
        self.0.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        Ok(Readiness::Pending)
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn kill(&mut self) {}

    fn reap(&mut self) -> Poll<ExitStatus> {
        Poll::Pending
    }
}

fn region() -> Arc<Region> {
    let (region, _file) = Region::create(Region::bytes_for(RINGS)).expect("memory");
    region.introduce(1, 0, RINGS);
    Arc::new(region)
}

fn process() -> Process {
    let (tie, theirs) = Tie::new().expect("descriptors");
    Process {
        handle: Box::new(Nothing(region(), theirs)),
        tie,
        number: 1,
        seed: 0,
        info: None,
        failure: None,
        is_watched: false,
        ask_again: None,
        pipes: None,
    }
}

fn channel() -> ParentChannel {
    ParentChannel::new(region(), RINGS)
}

fn position() -> PositionId {
    let positions = crate::engine::positions::Positions::new(1);
    positions.all().next().expect("one")
}

/// A slot in each of its states.
fn each_state() -> [Slot; 5] {
    let mut slots = [(); 5].map(|()| Slot::new(Some(position())));
    for slot in &mut slots[1..] {
        slot.launch(1, 0);
    }
    for slot in &mut slots[2..] {
        slot.start(process(), 7);
    }
    for slot in &mut slots[3..] {
        slot.reach(channel(), 8);
    }
    for slot in &mut slots[4..] {
        let released = slot.let_go().expect("a worker");
        slot.await_status(released);
    }
    let names = slots.each_ref().map(|slot| slot.phase().name());
    assert_eq!(names, ["down", "launching", "starting", "up", "dying"]);
    slots
}

type Transition = fn(&mut Slot);

/// What each transition makes of each state; `None`: it is refused, and the state stays.
const TRANSITIONS: [(&str, Transition, [Option<&str>; 5]); 7] = [
    (
        "launch",
        |slot| slot.launch(2, 1),
        [Some("launching"), None, None, None, None],
    ),
    (
        "start",
        |slot| slot.start(process(), 9),
        [None, Some("starting"), None, None, None],
    ),
    (
        "launch_failed",
        Slot::launch_failed,
        [Some("down"), Some("down"), None, None, None],
    ),
    (
        "reach",
        |slot| slot.reach(channel(), 9),
        [None, None, Some("up"), None, None],
    ),
    (
        "let_go",
        |slot| drop(slot.let_go()),
        [
            Some("down"),
            Some("launching"),
            Some("down"),
            Some("down"),
            Some("down"),
        ],
    ),
    (
        "await_status",
        |slot| {
            slot.await_status(Released {
                process: process(),
                channel: None,
                was_dying: false,
            });
        },
        [Some("dying"), None, None, None, None],
    ),
    (
        "launch_not_before",
        |slot| slot.launch_not_before(5),
        [Some("down"), None, None, None, None],
    ),
];

#[test]
fn each_transition_from_each_state() {
    for (name, transition, expected) in TRANSITIONS {
        for (slot, expected) in each_state().iter_mut().zip(expected) {
            let before = slot.phase().name();
            let done = catch_unwind(AssertUnwindSafe(|| transition(slot)));
            let is_refused = expected.is_none() && cfg!(debug_assertions);
            assert_eq!(done.is_err(), is_refused, "{name} from {before}");
            let after = expected.unwrap_or(before);
            assert_eq!(slot.phase().name(), after, "{name} from {before}");
        }
    }
}

#[test]
fn a_new_worker_has_nothing_of_the_one_before() {
    let [_, _, _, mut slot, _] = each_state();
    fill(&mut slot);
    slot.let_go().expect("a worker");
    slot.launch(2, 1);
    slot.start(process(), 0);
    assert_nothing_is_known(&slot);
}

/// Timers and reports look at slots whose worker is gone, too.
#[test]
fn what_was_known_of_a_worker_is_gone_with_it() {
    let [_, _, _, mut slot, _] = each_state();
    fill(&mut slot);
    slot.let_go().expect("a worker");
    assert!(slot.is_killed(), "what it had is taken back by that");
    slot.is_gone();
    assert_nothing_is_known(&slot);
}

/// Lets a worker that is up have all that can be known of one.
fn fill(slot: &mut Slot) {
    slot.begin_initializer();
    slot.is_ready();
    slot.plan_departure(ExitReason::MaxAge);
    slot.go_without_successor();
    slot.disconnect(3);
    slot.kill(Killed::Deadline, 9);
    slot.check_deadline_by(5);
    slot.worked(3);
}

fn assert_nothing_is_known(slot: &Slot) {
    assert!(!slot.is_killed() && !slot.is_to_go() && !slot.goes_without_successor());
    assert!(!slot.is_set_up() && !slot.has_finished_chunk() && slot.is_connected());
    let times = (
        slot.deadline_check_due(),
        slot.death_due(),
        slot.polled_at(),
    );
    assert_eq!(times, (None, None, None));
    assert_eq!(slot.tally().items, 0);
}

/// Whether a build with debug assertions refuses it; others do nothing.
fn is_refused(slot: &mut Slot, transition: impl FnOnce(&mut Slot)) -> bool {
    let done = catch_unwind(AssertUnwindSafe(|| transition(slot)));
    done.is_err() || !cfg!(debug_assertions)
}

#[test]
fn a_setup_goes_on_to_one_end() {
    let [_, _, _, mut slot, _] = each_state();
    slot.begin_initializer();
    assert!(is_refused(&mut slot, Slot::begin_initializer));
    assert!(matches!(slot.setup(), Setup::Initializer));
    slot.is_ready();
    assert!(is_refused(&mut slot, Slot::is_ready));
    let fail = |slot: &mut Slot| slot.setup_failed(TaskError::closed());
    assert!(is_refused(&mut slot, fail) && slot.is_set_up());
    let [_, _, _, mut slot, _] = each_state();
    fail(&mut slot);
    assert!(is_refused(&mut slot, Slot::is_ready));
    assert!(is_refused(&mut slot, Slot::begin_initializer));
    assert!(matches!(slot.setup(), Setup::Failed(_)));
}

#[test]
fn a_worker_is_killed_for_the_first_reason_and_gone_by_the_first_time() {
    let [mut down, mut launching, mut starting, mut up, mut dying] = each_state();
    for slot in [&mut down, &mut launching, &mut dying] {
        let kill = |slot: &mut Slot| slot.kill(Killed::Cancelled, 5);
        assert!(is_refused(slot, kill) && !slot.is_killed());
    }
    for slot in [&mut down, &mut launching] {
        assert!(is_refused(slot, |slot| slot.expect_death(5)));
        assert_eq!(slot.death_due(), None);
    }
    dying.expect_death(5);
    assert_eq!((dying.killed(), dying.death_due()), (None, Some(5)));
    for slot in [&mut starting, &mut up] {
        slot.expect_death(7);
        assert!(!slot.is_killed());
        slot.kill(Killed::Deadline, 8);
        slot.kill(Killed::Cancelled, 6);
        slot.expect_death(9);
        let known = (slot.killed(), slot.death_due());
        assert_eq!(known, (Some(Killed::Deadline), Some(6)));
    }
}

#[test]
fn a_disconnected_worker_is_looked_after_until_it_falls_silent() {
    let [_, _, mut starting, mut slot, _] = each_state();
    assert!(is_refused(&mut starting, |slot| slot.disconnect(1)));
    assert!(is_refused(&mut slot, Slot::fall_silent) && slot.is_connected());
    assert!(is_refused(&mut slot, |slot| slot.poll_again_at(2)));
    slot.disconnect(10);
    assert_eq!(
        (slot.disconnected_since(), slot.polled_at()),
        (Some(10), Some(10))
    );
    assert!(is_refused(&mut slot, |slot| slot.disconnect(11)));
    slot.poll_again_at(12);
    assert_eq!(
        (slot.disconnected_since(), slot.polled_at()),
        (Some(10), Some(12))
    );
    slot.fall_silent();
    assert!(!slot.is_connected());
    assert_eq!((slot.disconnected_since(), slot.polled_at()), (None, None));
    assert!(is_refused(&mut slot, |slot| slot.disconnect(13)));
}

#[test]
fn a_worker_that_gets_ahead_stalled_since_then() {
    let [_, _, _, mut slot, _] = each_state();
    assert_eq!(slot.stalled_since(4, 100), 100);
    assert_eq!(slot.stalled_since(4, 200), 100);
    slot.excuse(50);
    assert_eq!(slot.stalled_since(4, 300), 150, "it could not");
    assert_eq!(slot.stalled_since(3, 350), 150, "nobody gets behind");
    assert_eq!(slot.stalled_since(5, 400), 400);
    slot.check_deadline_by(500);
    assert_eq!(slot.stalled_since(1, 450), 450, "these are other items");
}

#[test]
fn a_departure_has_one_reason() {
    let mut slot = Slot::new(None);
    slot.plan_departure(ExitReason::MaxAge);
    slot.plan_departure(ExitReason::MaxMemory);
    assert_eq!(slot.departure(), Departure::Planned(ExitReason::MaxAge));
    slot.must_go(ExitReason::Resized);
    slot.retired(ExitReason::Closed);
    slot.must_go(ExitReason::Idle);
    slot.plan_departure(ExitReason::MaxAge);
    assert_eq!(slot.departure(), Departure::Retired(ExitReason::Resized));
}

#[test]
fn a_place_is_left_once_its_worker_is_gone() {
    let mut vacant = Slot::new(Some(position()));
    assert!(!vacant.leave(), "there was no worker");
    assert!(vacant.is_vacant());
    vacant.occupy(position());
    assert_eq!(vacant.position(), Some(position()));

    let [_, _, _, mut slot, _] = each_state();
    assert!(slot.leave());
    assert_eq!(slot.position(), None);
    drop(slot.let_go());
    assert!(!slot.is_vacant(), "the position waits for that");
    assert_eq!(slot.is_gone(), Some(position()));
    assert!(slot.is_vacant());
}
