//! The client: its dispatcher, and what it hears and says.

use super::{CLIENT, Frame, GIVE_UP, Said, Session, World};
use crate::dispatcher::{self, Loss, Verdict};
use crate::intake::Arrival;
use crate::message::{DeliveryId, PieceId};

impl World {
    /// The client hears of a session, and gives up the one before.
    fn welcome(&mut self, session: u64, at: usize, slots: usize, connection: u64) {
        let before = self.sessions.iter().find(|(_, it)| it.agent == at);
        if let Some((old, _)) = before {
            self.give_up(*old);
        }
        self.client.joined(session, slots);
        self.sessions.insert(
            session,
            Session {
                agent: at,
                heard_clock: 0,
                asked: None,
                has_gap: false,
            },
        );
        let epoch = self.client.epoch();
        self.say_to_agent(session, Said::Synced(epoch, connection));
    }

    pub(super) fn give_up(&mut self, session: u64) {
        if let Some(it) = self.sessions.remove(&session) {
            let has_gap = it.has_gap;
            self.found(session);
            self.missed.push((session, self.now, self.now));
            self.note(format!("client gives up session {session}, gap {has_gap}"));
            self.client.given_up(session, has_gap);
        }
    }

    /// The session is not missed any more.
    pub(super) fn found(&mut self, session: u64) {
        let mut missed = self.missed.iter_mut();
        let open = missed.find(|(of, _, until)| *of == session && *until == u64::MAX);
        if let Some((.., until)) = open {
            *until = self.now;
        }
    }

    pub(super) fn say_to_agent(&mut self, session: u64, said: Said) {
        let Some(it) = self.sessions.get(&session) else {
            return;
        };
        let (at, echo) = (it.agent, it.heard_clock);
        let delay = 1 + self.dice.roll(5);
        let agent = &mut self.agents[at];
        if agent.session != session {
            return;
        }
        let after = agent.from_client.back().map_or(0, |it| it.at);
        let after = after.max(agent.direct_until);
        agent.from_client.push_back(Frame {
            session,
            at: (self.now + delay).max(after),
            said,
            clock: self.now,
            echo,
        });
    }

    pub(super) fn client_acts(&mut self) {
        self.client_loses();
        while let Some(action) = self.client.poll_action(true) {
            match action {
                dispatcher::Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => {
                    let last = self.sends(delivery, epoch, &pieces);
                    if self.dice.one_in(200 * self.trouble) {
                        // The acknowledgement is lost, and perhaps the delivery.
                        if self.dice.one_in(2) {
                            self.store(delivery, epoch, pieces, last);
                        }
                        self.client.raise();
                    } else {
                        self.store(delivery, epoch, pieces, last);
                    }
                }
                dispatcher::Action::Send {
                    agent,
                    delivery,
                    oldest,
                    epoch,
                    piece,
                } => self.send_directly(agent, delivery, oldest, epoch, piece),
                dispatcher::Action::TellEpoch { agent, epoch } => {
                    self.say_to_agent(agent, Said::Epoch(epoch));
                }
                dispatcher::Action::Recall { agent, piece } => {
                    self.say_to_agent(agent, Said::Recall(piece));
                }
                dispatcher::Action::Cancel { agent, piece, .. } => {
                    self.say_to_agent(agent, Said::Cancel(piece));
                }
            }
        }
    }

    /// The client sends this. Says whether something of it must not run twice.
    fn sends(&mut self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) -> bool {
        self.deliveries.insert(delivery, pieces.to_vec());
        let mut last = false;
        for piece in pieces {
            let (job, items, attempt, retries) = self.client.piece(*piece).expect("it is sent");
            last |= attempt >= retries;
            self.pieces.insert(*piece, (job, items.collect()));
            self.epochs.insert(*piece, epoch);
        }
        last
    }

    /// It arrives, or is lost, or the server says that nobody is there.
    fn send_directly(
        &mut self,
        session: u64,
        delivery: DeliveryId,
        oldest: DeliveryId,
        epoch: u64,
        piece: PieceId,
    ) {
        let last = self.sends(delivery, epoch, &[piece]);
        self.note(format!("delivery {delivery} goes to session {session}"));
        self.known.insert((session, piece));
        let Some(it) = self.sessions.get(&session) else {
            return;
        };
        let at = it.agent;
        let delay = 1 + self.dice.roll(5);
        let is_lost = self.dice.one_in(20 * self.trouble);
        let is_noticed = self.dice.one_in(2);
        let agent = &mut self.agents[at];
        if agent.is_dead || agent.cut_until > self.now && is_noticed {
            self.unheard
                .push_back((self.now + delay, session, delivery));
        } else if agent.cut_until <= self.now && !is_lost {
            let arrival = Arrival {
                client: CLIENT,
                delivery,
                epoch,
                pieces: vec![piece],
                has_last_attempt: last,
                time: 1,
            };
            let mut when = (self.now + delay).max(agent.direct_until);
            if self.dice.one_in(20 * self.trouble) {
                // Other messages overtake it.
                when += self.dice.roll(15_000);
                self.late.insert(piece);
            } else {
                agent.direct_until = when;
            }
            let place = agent.direct.partition_point(|it| it.0 <= when);
            agent.direct.insert(place, (when, session, arrival, oldest));
        }
    }

    /// The client has it back from this session.
    fn returns(&mut self, session: u64, delivery: DeliveryId) {
        if self.client.was_sent_to(delivery) == Some(session) {
            for piece in &self.deliveries[&delivery] {
                self.known.remove(&(session, *piece));
                self.returned.insert((session, *piece));
            }
        }
        for (job, items) in self.client.returned(session, delivery) {
            assert!(self.cancelled.contains(&job));
            for index in items {
                self.deliver(job, index);
            }
        }
    }

    pub(super) fn client_loses(&mut self) {
        while let Some(Loss {
            agent, job, items, ..
        }) = self.client.poll_loss()
        {
            assert!(
                agent < self.next_session && !self.sessions.contains_key(&agent),
                "items are lost with session {agent}, which was not given up"
            );
            self.lost += items.len() as u64;
            for index in items {
                self.deliver(job, index);
            }
        }
    }

    pub(super) fn client_steps(&mut self) {
        let now = self.now;
        for at in 0..self.agents.len() {
            loop {
                let agent = &mut self.agents[at];
                let Some(frame) = agent.to_client.front().cloned() else {
                    break;
                };
                // What the server has, the agent's link does not hold up.
                let is_cut = agent.cut_until > now && frame.clock > agent.noted;
                if is_cut || frame.at > now {
                    break;
                }
                agent.to_client.pop_front();
                let key = frame.session;
                if let Said::Hello(slots, connection) = frame.said {
                    self.welcome(key, at, slots, connection);
                }
                let Some(session) = self.sessions.get_mut(&key) else {
                    // It was given up.
                    if !self.agents[at].is_dead && self.agents[at].session == key {
                        self.agents[at].from_client.push_back(Frame {
                            session: key,
                            at: now + 1,
                            said: Said::Gone,
                            clock: now,
                            echo: 0,
                        });
                    }
                    continue;
                };
                session.asked = None;
                session.heard_clock = session.heard_clock.max(frame.clock);
                if self.client.reachable(key) {
                    self.found(key);
                }
                self.client_hears(key, frame.said);
                self.client_acts();
            }
        }
        while self.unheard.front().is_some_and(|it| it.0 <= now) {
            let (_, session, delivery) = self.unheard.pop_front().expect("it was seen");
            if self.client.was_sent_to(delivery) == Some(session) {
                self.note(format!("nobody was there for delivery {delivery}"));
                self.returns(session, delivery);
                self.unheard_of(session);
            }
        }
        let mut given_up = Vec::new();
        let mut to_ask = Vec::new();
        for (key, session) in &mut self.sessions {
            if !self.client.watches(*key) {
                session.asked = None;
                continue;
            }
            if now.is_multiple_of(50) {
                session.asked.get_or_insert(now);
                to_ask.push(*key);
            }
            if session.asked.is_some_and(|asked| now > asked + GIVE_UP) {
                given_up.push(*key);
            }
        }
        for key in to_ask {
            let at = self.sessions[&key].agent;
            let agent = &self.agents[at];
            // The server may know that the agent's connection is lost. It may be back before the
            // agent has noticed.
            let is_unheard = agent.is_dead
                || agent.cut_until > now && self.dice.one_in(20)
                || self.dice.one_in(200 * self.trouble);
            if is_unheard {
                self.unheard_of(key);
            } else {
                self.say_to_agent(key, Said::Ping);
            }
            for delivery in self.client.take_unconfirmed(key) {
                self.say_to_agent(key, Said::Sent(delivery));
            }
        }
        for key in given_up {
            self.give_up(key);
        }
    }

    /// The server says that nobody is there.
    fn unheard_of(&mut self, session: u64) {
        if self.client.unreachable(session) {
            self.missed.push((session, self.now, u64::MAX));
            self.note(format!("nobody answers in session {session}"));
        }
    }

    fn knows(&mut self, session: u64, delivery: DeliveryId, has_begun: bool) {
        if has_begun {
            let pieces = self.deliveries[&delivery].iter();
            self.known.extend(pieces.map(|it| (session, *it)));
        }
    }

    fn client_hears(&mut self, key: u64, said: Said) {
        self.note(format!("client hears of {key}: {said:?}"));
        match said {
            Said::Ask(delivery, time) => {
                let granted = self.client.asked(key, delivery, time);
                self.knows(key, delivery, granted);
                self.say_to_agent(key, Said::Verdict(delivery, granted));
            }
            Said::Begun(delivery) => {
                let may_run = self.client.begun(key, delivery);
                self.knows(key, delivery, may_run);
                if !may_run {
                    self.say_to_agent(key, Said::Verdict(delivery, false));
                }
            }
            Said::Kept(epoch) => self.client.kept(key, epoch),
            Said::Returned(delivery) => self.returns(key, delivery),
            Said::Sync(connection) => {
                let epoch = self.client.epoch();
                self.say_to_agent(key, Said::Synced(epoch, connection));
            }
            Said::Outcome(piece, index, dies) => {
                match self.client.outcome(key, piece, index, dies, 1_000_000) {
                    Verdict::Deliver { job, .. } => self.deliver(job, index),
                    Verdict::Retry | Verdict::Drop => {}
                }
            }
            _ => {}
        }
    }
}
