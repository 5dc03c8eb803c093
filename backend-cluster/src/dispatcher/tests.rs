//! What becomes of what an agent has taken that nobody can reach, or that was given up.

use super::*;

const DEAD: AgentId = 1;
const OTHER: AgentId = 2;

/// What was published: the delivery, its epoch, and the jobs of its pieces.
type Published = (DeliveryId, u64, Vec<JobId>);

fn terms(retries: u32) -> Terms {
    Terms {
        function: 7,
        priority: 0,
        retries,
        bytes: 10,
    }
}

/// With two agents of two slots, and jobs of one item with so many retries, numbered from 0.
fn dispatcher(retries: &[u32]) -> Dispatcher {
    let mut dispatcher = Dispatcher::new();
    for agent in [DEAD, OTHER] {
        joined(&mut dispatcher, agent, 2);
    }
    for (job, retries) in (0..).zip(retries) {
        dispatcher.submit(job, 0..1, terms(*retries));
    }
    dispatcher
}

/// An agent to which nothing goes but by the queue.
fn joined(dispatcher: &mut Dispatcher, agent: AgentId, slots: usize) {
    dispatcher.joined(agent, slots);
    let it = dispatcher.agents.get_mut(&agent).expect("it is there");
    it.direct.declines = true;
}

/// Does what it says, and tells what was published and who was told of which epoch.
fn act(dispatcher: &mut Dispatcher) -> (Vec<Published>, Vec<(AgentId, u64)>) {
    let (mut published, mut told) = (Vec::new(), Vec::new());
    while let Some(action) = dispatcher.poll_action(true) {
        match action {
            Action::Publish {
                delivery,
                epoch,
                pieces,
            } => {
                let job = |piece| dispatcher.piece(piece).expect("it is sent").0;
                published.push((delivery, epoch, pieces.into_iter().map(job).collect()));
            }
            Action::TellEpoch { agent, epoch } => told.push((agent, epoch)),
            _ => {}
        }
    }
    (published, told)
}

fn publish(dispatcher: &mut Dispatcher) -> Vec<Published> {
    act(dispatcher).0
}

#[test]
fn what_may_run_twice_goes_to_others_when_those_who_are_there_have_answered() {
    let mut dispatcher = dispatcher(&[1, 0]);
    let first = publish(&mut dispatcher);
    assert_eq!(first, [(1, 1, vec![0]), (2, 1, vec![1])]);
    assert!(dispatcher.unreachable(DEAD));
    // The other one may be about to begin it.
    let (published, told) = act(&mut dispatcher);
    assert_eq!(published, []);
    assert_eq!(told.len(), 2);
    dispatcher.kept(OTHER, 2);
    assert_eq!(publish(&mut dispatcher), [(3, 2, vec![0])]);
    // What must not waits until it is known that the dead one does not begin it.
    dispatcher.given_up(DEAD, false);
    dispatcher.kept(OTHER, 3);
    let rest = publish(&mut dispatcher);
    assert!(rest.iter().any(|it| it.2 == [1]), "{rest:?}");
}

#[test]
fn it_goes_at_once_if_those_who_are_there_have_answered_before() {
    let mut dispatcher = dispatcher(&[1]);
    publish(&mut dispatcher);
    dispatcher.raise();
    dispatcher.kept(OTHER, 2);
    assert_eq!(publish(&mut dispatcher), []);
    dispatcher.unreachable(DEAD);
    assert_eq!(publish(&mut dispatcher), [(2, 2, vec![0])]);
}

#[test]
fn it_goes_at_once_if_nobody_is_there() {
    let mut dispatcher = dispatcher(&[1]);
    dispatcher.given_up(OTHER, false);
    assert_eq!(publish(&mut dispatcher).len(), 1);
    assert!(dispatcher.unreachable(DEAD));
    // There is nobody to publish it for.
    assert_eq!(publish(&mut dispatcher), []);
    joined(&mut dispatcher, 3, 2);
    assert_eq!(publish(&mut dispatcher), [(2, dispatcher.epoch(), vec![0])]);
}

#[test]
fn who_is_missed_is_asked_as_long_as_there_is_something_to_do() {
    let mut dispatcher = dispatcher(&[1]);
    dispatcher.given_up(OTHER, false);
    publish(&mut dispatcher);
    assert!(dispatcher.watches(DEAD));
    dispatcher.unreachable(DEAD);
    // It has nothing now, but may be back.
    assert!(dispatcher.watches(DEAD));
    dispatcher.cancel(0, false);
    assert!(!dispatcher.watches(DEAD));
    dispatcher.submit(1, 0..1, terms(0));
    assert!(dispatcher.watches(DEAD));
    dispatcher.reachable(DEAD);
    assert_eq!(publish(&mut dispatcher).len(), 1);
}

#[test]
fn who_comes_back_does_not_get_it_again() {
    let mut dispatcher = dispatcher(&[1]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    dispatcher.kept(OTHER, 2);
    assert_eq!(publish(&mut dispatcher), [(2, 2, vec![0])]);
    assert!(dispatcher.reachable(DEAD));
    assert!(!dispatcher.begun(DEAD, 1));
    assert!(!dispatcher.asked(DEAD, 1, 1));
    dispatcher.kept(DEAD, 2);
    // Of what it has begun of it, nothing is taken.
    assert_eq!(dispatcher.outcome(DEAD, 1, 0, false, 1), Verdict::Drop);
    assert!(dispatcher.begun(OTHER, 2));
    let verdict = dispatcher.outcome(OTHER, 2, 0, false, 1);
    // It is not known that an attempt was lost.
    assert_eq!(verdict, Verdict::Deliver { job: 0, losses: 0 });
    assert!(dispatcher.is_idle());
}

#[test]
fn who_comes_back_before_that_is_waited_for() {
    let mut dispatcher = dispatcher(&[1]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    dispatcher.reachable(DEAD);
    dispatcher.kept(OTHER, 2);
    assert_eq!(publish(&mut dispatcher), []);
    // It has begun it in time.
    assert!(dispatcher.begun(DEAD, 1));
    dispatcher.kept(DEAD, 2);
    assert_eq!(publish(&mut dispatcher), []);
    let verdict = dispatcher.outcome(DEAD, 1, 0, false, 1);
    assert_eq!(verdict, Verdict::Deliver { job: 0, losses: 0 });
}

#[test]
fn the_epoch_is_raised_once_each_time_that_an_agent_is_missed() {
    let mut dispatcher = dispatcher(&[1, 0]);
    publish(&mut dispatcher);
    assert!(dispatcher.unreachable(DEAD));
    for _ in 0..10 {
        assert!(!dispatcher.unreachable(DEAD));
    }
    assert_eq!(dispatcher.epoch(), 2);
    dispatcher.reachable(DEAD);
    // Everything that may run twice waits for an answer already.
    dispatcher.unreachable(DEAD);
    assert_eq!(dispatcher.epoch(), 2);
    dispatcher.kept(OTHER, 2);
    publish(&mut dispatcher);
    dispatcher.reachable(DEAD);
    dispatcher.unreachable(DEAD);
    assert_eq!(dispatcher.epoch(), 3);
}

#[test]
fn for_what_must_not_run_twice_the_epoch_is_not_raised() {
    let mut dispatcher = dispatcher(&[0, 0]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    assert_eq!(act(&mut dispatcher), (vec![], vec![]));
    assert_eq!(dispatcher.epoch(), 1);
}

#[test]
fn what_must_not_run_twice_goes_on_with_who_has_got_it_first() {
    let mut dispatcher = dispatcher(&[1, 0, 0, 0]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    // An older epoch is a reason to ask, and none to refuse.
    assert!(dispatcher.asked(OTHER, 2, 1));
    dispatcher.kept(OTHER, 2);
    assert!(dispatcher.asked(OTHER, 3, 1));
    // The second one to get it is not the only one.
    assert!(!dispatcher.asked(OTHER, 4, 2));
    assert_eq!(dispatcher.epoch(), 2);
    assert!(!dispatcher.begun(DEAD, 2));
}

#[test]
fn what_is_given_back_is_with_nobody_though_the_epoch_is_a_newer_one() {
    let mut dispatcher = dispatcher(&[1, 0]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    dispatcher.refused(2);
    assert_eq!(publish(&mut dispatcher), [(3, 2, vec![1])]);
}

#[test]
fn a_queue_that_may_have_forgotten_decides_nothing() {
    let mut dispatcher = dispatcher(&[0, 0]);
    publish(&mut dispatcher);
    dispatcher.reconnected();
    dispatcher.has_queue();
    assert!(!dispatcher.asked(OTHER, 1, 1));
    dispatcher.refused(2);
    assert_eq!(publish(&mut dispatcher), []);
    dispatcher.kept(OTHER, 2);
    assert_eq!(publish(&mut dispatcher), []);
    dispatcher.kept(DEAD, 2);
    assert_eq!(publish(&mut dispatcher).len(), 2);
}

#[test]
fn who_could_not_be_reached_is_waited_for_in_another_connection() {
    let mut dispatcher = dispatcher(&[1]);
    publish(&mut dispatcher);
    dispatcher.unreachable(DEAD);
    dispatcher.reconnected();
    dispatcher.has_queue();
    assert!(!dispatcher.is_unreachable(DEAD));
    dispatcher.kept(OTHER, dispatcher.epoch());
    // It may have begun it, and say so now.
    assert_eq!(publish(&mut dispatcher), []);
    assert!(dispatcher.begun(DEAD, 1));
}

#[test]
fn what_may_run_twice_does_not_travel_with_what_must_not() {
    let mut dispatcher = dispatcher(&[0]);
    dispatcher.durations.note(7, 1);
    let of_first = publish(&mut dispatcher);
    assert_eq!(of_first.len(), 1);
    for job in 1..100 {
        dispatcher.submit(job, 0..1, terms(u32::from(job % 20 < 10)));
    }
    let published = publish(&mut dispatcher);
    assert!(published.iter().any(|it| it.2.len() > 1), "{published:?}");
    for (.., jobs) in published {
        assert!(jobs.iter().all(|it| (it % 20 < 10) == (jobs[0] % 20 < 10)));
    }
}

#[test]
fn a_large_agent_that_is_missed_keeps_nobody_from_work() {
    let mut dispatcher = Dispatcher::new();
    joined(&mut dispatcher, DEAD, 64);
    for job in 0..1000 {
        dispatcher.submit(job, 0..1, terms(0));
    }
    // It has taken them all.
    let taken = publish(&mut dispatcher).len();
    for delivery in 1..=64 {
        dispatcher.begun(DEAD, delivery);
    }
    assert!(taken >= 128);
    joined(&mut dispatcher, OTHER, 2);
    dispatcher.unreachable(DEAD);
    assert!(publish(&mut dispatcher).len() >= 2);
}

#[test]
fn what_was_queued_waits_for_the_next_epoch_and_for_no_later_one() {
    let mut dispatcher = dispatcher(&[0]);
    assert_eq!(publish(&mut dispatcher).len(), 1);
    dispatcher.raise();
    dispatcher.kept(OTHER, 2);
    // The other one may have begun it, and says nothing.
    assert_eq!(publish(&mut dispatcher), []);
    joined(&mut dispatcher, 3, 1);
    dispatcher.given_up(DEAD, false);
    // That has raised the epoch once more. Of the new one nobody has heard, and of the one before
    // everybody has: nobody begins the old delivery any more.
    assert_eq!(dispatcher.epoch(), 3);
    assert_eq!(publish(&mut dispatcher), [(2, 3, vec![0])]);
}

#[test]
fn what_is_in_doubt_is_lost_with_the_agent_that_made_it_so() {
    let mut dispatcher = dispatcher(&[0, 1]);
    assert_eq!(publish(&mut dispatcher).len(), 2);
    dispatcher.given_up(DEAD, true);
    assert!(dispatcher.doubts(DEAD) && dispatcher.poll_loss().is_none());
    dispatcher.kept(OTHER, 2);
    let loss = dispatcher.poll_loss().expect("it is lost");
    assert_eq!((loss.job, loss.agent), (0, DEAD));
    assert_eq!(dispatcher.poll_loss(), None);
    // What may be tried again is.
    assert_eq!(publish(&mut dispatcher), [(3, 2, vec![1])]);
}
