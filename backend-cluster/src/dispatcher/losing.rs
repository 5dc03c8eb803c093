//! What becomes of what an agent has, or may have, that is dead or out of reach; and of what is
//! queued when the connection breaks. See "Why nothing begins twice" in `README.md`.

use super::{Action, Agent, Dispatcher, Loss};
use crate::message::{AgentId, DeliveryId, PieceId};

impl Dispatcher {
    /// Nobody answers where the agent was. It is dead, or has lost its connection. What it has
    /// begun, and what it may have taken from the queue, goes to others if it may run twice. Says
    /// whether that is new.
    pub(crate) fn unreachable(&mut self, agent: AgentId) -> bool {
        let Some(it) = self.agents.get_mut(&agent) else {
            return false;
        };
        if std::mem::replace(&mut it.is_unreachable, true) {
            return false;
        }
        let begun: Vec<DeliveryId> = it.begun.iter().copied().collect();
        for piece in self.pieces_of(&begun) {
            if self.pieces[&piece].is_tried_again() {
                self.actions.push_back(Action::Recall { agent, piece });
                self.again(piece, agent);
            }
        }
        // Once each time that it is found unreachable: what is published from now on, it does not
        // begin without asking.
        let mut sent = self.sent.values();
        if sent.any(|it| it.agent.is_none() && it.may_run_twice && it.epoch == self.epoch) {
            self.raise();
        } else {
            self.settle();
        }
        true
    }

    /// The agent was heard of. Says whether it was unreachable.
    pub(crate) fn reachable(&mut self, agent: AgentId) -> bool {
        let it = self.agents.get_mut(&agent);
        it.is_some_and(|it| std::mem::take(&mut it.is_unreachable))
    }

    /// Whether nobody answers where the agent was.
    pub(crate) fn is_unreachable(&self, agent: AgentId) -> bool {
        self.agents.get(&agent).is_some_and(|it| it.is_unreachable)
    }

    /// Whether something may be lost with this agent yet, which was given up.
    pub(crate) fn doubts(&self, agent: AgentId) -> bool {
        self.doubted == Some(agent)
    }

    /// The agent is dead, or does not work for this client any more. `has_gap`: something that it
    /// has said is missing, and something that it has said later was heard.
    pub(crate) fn given_up(&mut self, agent: AgentId, has_gap: bool) {
        let Some(it) = self.agents.remove(&agent) else {
            return;
        };
        let begun: Vec<DeliveryId> = it.begun.into_iter().collect();
        for piece in self.pieces_of(&begun) {
            self.again(piece, agent);
        }
        if has_gap {
            self.doubt = self.epoch;
            self.doubted = Some(agent);
        } else if it.kept < self.connected_in {
            // What it has said before this connection may be lost. What it has said since was
            // heard, and of what was published since, it knows after it has kept an epoch.
            self.doubt = self.doubt.max(self.connected_in - 1);
            self.doubted = Some(agent);
        }
        if self.queued > 0 {
            self.raise();
        } else {
            self.settle();
        }
    }

    /// It is not known what became of a publish, or the connection was lost and is back: what is
    /// queued may be gone, and may be given out twice.
    pub(crate) fn raise(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        for agent in self.agents.keys() {
            let agent = *agent;
            self.actions.push_back(Action::TellEpoch { agent, epoch });
        }
        self.settle();
    }

    /// There is no connection to publish to.
    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
    }

    /// There is a connection again, to a server that may have lost everything, or forgotten what it
    /// has given out. To be said before anything is that came in this connection: who is told of
    /// the old epoch in it begins again what others have begun. Who can be reached in it is found
    /// out anew.
    pub(crate) fn reconnected(&mut self) {
        self.is_connected = false;
        self.connected_in = self.epoch + 1;
        for it in self.agents.values_mut() {
            it.is_unreachable = false;
        }
        self.raise();
    }

    /// There is a queue to publish to.
    pub(crate) fn has_queue(&mut self) {
        self.is_connected = true;
    }

    /// An attempt is lost with this agent: what has no outcome is tried once more, or is lost too.
    pub(super) fn again(&mut self, piece: PieceId, agent: AgentId) {
        let Some(it) = self.pieces.get_mut(&piece) else {
            return;
        };
        let items = it.pending.take_all();
        let is_tried_again = it.is_tried_again();
        let (job, attempt, terms) = (it.job, it.attempt, it.terms.clone());
        self.end(piece);
        for items in items {
            if is_tried_again {
                self.add(job, items, attempt + 1, terms.clone());
            } else {
                self.losses.push_back(Loss {
                    agent,
                    job,
                    items,
                    attempts: attempt + 1,
                });
            }
        }
    }

    /// What is queued with an older epoch than every agent keeps is with nobody; what may run twice
    /// is with nobody who matters, if those keep a newer one that can be reached. That need not be
    /// the newest of all: there may be another one each time before all have answered.
    pub(super) fn settle(&mut self) {
        let least = |agents: &mut dyn Iterator<Item = &Agent>| {
            let kept = agents.map(|it| it.kept).min();
            kept.unwrap_or(self.epoch)
        };
        let of_all = least(&mut self.agents.values());
        let of_reached = least(&mut self.agents.values().filter(|it| !it.is_unreachable));
        let mut old: Vec<DeliveryId> = self
            .sent
            .iter()
            .filter(|(_, it)| it.agent.is_none())
            .filter(|(_, it)| it.epoch < of_all || it.may_run_twice && it.epoch < of_reached)
            .map(|(id, _)| *id)
            .collect();
        old.sort_unstable();
        for delivery in old {
            match self.doubted {
                Some(agent) if self.sent[&delivery].epoch <= self.doubt => {
                    for piece in self.pieces_of(&[delivery]) {
                        self.again(piece, agent);
                    }
                }
                _ => self.take_back(delivery),
            }
        }
    }
}
