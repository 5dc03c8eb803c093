//! What goes to an agent without the queue.
//!
//! The queue is there to find who is free. Where a client knows of a free slot, and has no more
//! than fits into such, it sends to the agent itself: two messages less before the item runs, and
//! no word that the server must have had. The agent may run it once, and counts as having begun it
//! from the moment in which it is sent. So it goes to another one only if it is certain that the
//! agent does not begin it: nobody was there to hear it, or the agent has said so, for good.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Action, Agent, Dispatcher, JobId, PieceState, Sent};
use crate::message::{AgentId, DeliveryId};

/// What an agent was sent, and has not brought to an end.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// Whether the agent was asked if it has each of them.
    open: BTreeMap<DeliveryId, bool>,
    /// Its slots were others' when it was sent something. The queue knows when they are not.
    pub(super) declines: bool,
}

impl Direct {
    pub(super) fn forget(&mut self, delivery: DeliveryId) {
        self.open.remove(&delivery);
    }
}

impl Agent {
    /// How many slots are free, as far as this client knows.
    fn free(&self) -> usize {
        if self.is_leaving || self.is_unreachable || self.direct.declines {
            return 0;
        }
        self.slots.saturating_sub(self.begun.len())
    }
}

impl Dispatcher {
    /// Sends to free slots what there is, if that is not more than they can take.
    pub(super) fn send_directly(&mut self) {
        let free: usize = self.agents.values().map(Agent::free).sum();
        // What is queued may be in some of them already.
        if self.ready.len() > free.saturating_sub(self.queued) {
            return;
        }
        while let Some((_, piece)) = self.ready.first_key_value()
            && !self.pieces[piece].is_for_queue
        {
            let (_, piece) = self.ready.pop_first().expect("it was seen");
            let agents = self.agents.iter_mut();
            let (agent, it) = agents
                .max_by_key(|(_, it)| it.free())
                .expect("one of them has a free slot");
            let delivery = self.next_delivery;
            self.next_delivery += 1;
            it.begun.insert(delivery);
            it.direct.open.insert(delivery, false);
            let (oldest, _) = it.direct.open.first_key_value().expect("there is one");
            let (agent, oldest) = (*agent, *oldest);
            let of_piece = self.pieces.get_mut(&piece).expect("it was ready");
            of_piece.state = PieceState::Sent(delivery);
            let sent = Sent {
                epoch: self.epoch,
                left: 1,
                pieces: vec![piece],
                may_run_twice: of_piece.is_tried_again(),
                agent: Some(agent),
            };
            self.sent.insert(delivery, sent);
            self.actions.push_back(Action::Send {
                agent,
                delivery,
                oldest,
                epoch: self.epoch,
                piece,
            });
        }
    }

    /// What the agent is to be asked for: whether it has this, which was sent to it a moment ago.
    /// Each is named once.
    pub(crate) fn take_unconfirmed(&mut self, agent: AgentId) -> Vec<DeliveryId> {
        let Some(it) = self.agents.get_mut(&agent) else {
            return Vec::new();
        };
        let open = it.direct.open.iter_mut();
        let new = open.filter(|(_, was_asked)| !**was_asked);
        new.map(|(delivery, was_asked)| {
            *was_asked = true;
            *delivery
        })
        .collect()
    }

    /// The agent that was sent this without the queue.
    pub(crate) fn was_sent_to(&self, delivery: DeliveryId) -> Option<AgentId> {
        let agent = self.sent.get(&delivery)?.agent?;
        let open = &self.agents.get(&agent)?.direct.open;
        open.contains_key(&delivery).then_some(agent)
    }

    /// The agent has not begun this, and does not: it gives it back, or was not there to hear of
    /// it. Says which items get no outcome from an agent, since they were withdrawn meanwhile.
    pub(crate) fn returned(
        &mut self,
        agent: AgentId,
        delivery: DeliveryId,
    ) -> Vec<(JobId, Range<usize>)> {
        if self.was_sent_to(delivery) != Some(agent) {
            self.refused(delivery);
            return Vec::new();
        }
        if let Some(it) = self.agents.get_mut(&agent) {
            it.direct.declines = true;
        }
        let mut withdrawn = Vec::new();
        for piece in self.pieces_of(&[delivery]) {
            let it = self.pieces.get_mut(&piece).expect("it is not through");
            it.is_for_queue = true;
            if it.is_withdrawn {
                let (job, items) = (it.job, it.pending.take_all());
                withdrawn.extend(items.into_iter().map(|items| (job, items)));
                self.end(piece);
            }
        }
        self.take_back(delivery);
        withdrawn
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Terms, Verdict};
    use super::*;

    const FIRST: AgentId = 1;
    const SECOND: AgentId = 2;

    /// With two agents of one slot.
    fn dispatcher() -> Dispatcher {
        let mut dispatcher = Dispatcher::new();
        dispatcher.joined(FIRST, 1);
        dispatcher.joined(SECOND, 1);
        dispatcher
    }

    fn submit(dispatcher: &mut Dispatcher, job: JobId, retries: u32) {
        let terms = Terms {
            function: 7,
            priority: 0,
            retries,
            bytes: 10,
        };
        dispatcher.submit(job, 0..1, terms);
    }

    /// Where everything goes that it sends: the delivery, and to which agent, if not to the queue.
    fn sent(dispatcher: &mut Dispatcher) -> Vec<(DeliveryId, Option<AgentId>)> {
        let actions = std::iter::from_fn(|| dispatcher.poll_action(true));
        let sent = actions.filter_map(|action| match action {
            Action::Send {
                agent,
                delivery,
                oldest,
                ..
            } => {
                assert_eq!(oldest, delivery, "an agent has one slot here");
                Some((delivery, Some(agent)))
            }
            Action::Publish { delivery, .. } => Some((delivery, None)),
            _ => None,
        });
        sent.collect()
    }

    #[test]
    fn what_fits_into_free_slots_goes_there() {
        let mut dispatcher = dispatcher();
        submit(&mut dispatcher, 0, 0);
        let first = sent(&mut dispatcher);
        submit(&mut dispatcher, 1, 0);
        let second = sent(&mut dispatcher);
        let mut agents = [first[0].1, second[0].1];
        agents.sort_unstable();
        assert_eq!(agents, [Some(FIRST), Some(SECOND)]);
        submit(&mut dispatcher, 2, 0);
        assert_eq!(sent(&mut dispatcher), [(3, None)]);
        // What is queued may be in the slot that is free now.
        let agent = first[0].1.unwrap();
        let verdict = dispatcher.outcome(agent, 1, 0, false, 1);
        assert_eq!(verdict, Verdict::Deliver { job: 0, losses: 0 });
        submit(&mut dispatcher, 3, 0);
        assert_eq!(sent(&mut dispatcher), [(4, None)]);
    }

    #[test]
    fn more_than_that_is_shared_by_the_queue() {
        let mut dispatcher = dispatcher();
        for job in 0..3 {
            submit(&mut dispatcher, job, 0);
        }
        assert!(sent(&mut dispatcher).iter().all(|it| it.1.is_none()));
    }

    #[test]
    fn one_goes_after_the_other() {
        let mut dispatcher = dispatcher();
        for job in 0..10 {
            submit(&mut dispatcher, job, 0);
            let (delivery, agent) = sent(&mut dispatcher)[0];
            let agent = agent.expect("both are free");
            assert_eq!(dispatcher.was_sent_to(delivery), Some(agent));
            dispatcher.outcome(agent, delivery, 0, false, 1);
            assert_eq!(dispatcher.was_sent_to(delivery), None);
        }
    }

    #[test]
    fn what_comes_back_goes_by_the_queue() {
        let mut dispatcher = dispatcher();
        submit(&mut dispatcher, 0, 0);
        let (delivery, agent) = sent(&mut dispatcher)[0];
        let agent = agent.unwrap();
        let other = FIRST + SECOND - agent;
        // That is not its to give back.
        assert!(dispatcher.returned(other, delivery).is_empty());
        assert_eq!(dispatcher.was_sent_to(delivery), Some(agent));
        assert!(dispatcher.returned(agent, delivery).is_empty());
        assert_eq!(sent(&mut dispatcher), [(2, None)]);
        assert_eq!(dispatcher.outcome(agent, 1, 0, false, 1), Verdict::Drop);
        assert!(dispatcher.begun(other, 2));
        submit(&mut dispatcher, 1, 0);
        assert_eq!(sent(&mut dispatcher), [(3, None)]);
        // A slot of it is free again.
        assert!(dispatcher.begun(agent, 3));
        dispatcher.outcome(agent, 3, 0, false, 1);
        submit(&mut dispatcher, 2, 0);
        assert_eq!(sent(&mut dispatcher), [(4, Some(agent))]);
    }

    #[test]
    fn it_is_asked_for_once() {
        let mut dispatcher = dispatcher();
        submit(&mut dispatcher, 0, 0);
        let agent = sent(&mut dispatcher)[0].1.unwrap();
        assert_eq!(dispatcher.take_unconfirmed(agent), [1]);
        assert!(dispatcher.take_unconfirmed(agent).is_empty());
        // Who has no lease asks.
        assert!(dispatcher.asked(agent, 1, 1));
        assert!(!dispatcher.asked(FIRST + SECOND - agent, 1, 1));
    }

    #[test]
    fn what_was_cancelled_meanwhile_does_not_go_again() {
        let mut dispatcher = dispatcher();
        submit(&mut dispatcher, 0, 5);
        let agent = sent(&mut dispatcher)[0].1.unwrap();
        // The agent is to say what has become of it.
        assert!(dispatcher.cancel(0, true).is_empty());
        assert_eq!(dispatcher.returned(agent, 1), [(0, 0..1)]);
        assert!(sent(&mut dispatcher).is_empty() && dispatcher.is_idle());
    }

    #[test]
    fn with_a_session_it_is_lost_or_tried_again() {
        let mut dispatcher = dispatcher();
        submit(&mut dispatcher, 0, 0);
        let agent = sent(&mut dispatcher)[0].1.unwrap();
        dispatcher.given_up(agent, false);
        let loss = dispatcher.poll_loss().expect("it may have begun");
        assert_eq!((loss.agent, loss.job), (agent, 0));
        submit(&mut dispatcher, 1, 1);
        let (delivery, agent) = sent(&mut dispatcher)[0];
        let agent = agent.unwrap();
        dispatcher.joined(3, 1);
        assert!(dispatcher.unreachable(agent));
        assert_eq!(sent(&mut dispatcher), [(delivery + 1, Some(3))]);
        assert!(dispatcher.returned(agent, delivery).is_empty());
    }
}
