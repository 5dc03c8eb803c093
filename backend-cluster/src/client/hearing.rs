//! What agents say.

use std::collections::HashSet;

use async_nats::Message;
use procpool_core::{BroadcastContent, ContentId, ExitReason};

use super::envelope::Envelope;
use super::gathering::Gathered;
use super::sessions::{Belongs, Key};
use super::{Client, GATHER_LIMIT};
use crate::clock;
use crate::link::{Lane, Limits, session_of};
use crate::message::{AgentCard, PieceId, ToAgent, ToClient, Wanted, from_bytes, to_bytes};
use crate::nats::last_number;

impl Client {
    /// A frame of an agent's.
    pub(super) async fn frame(&mut self, message: &Message) {
        let Some(agent) = last_number(&message.subject) else {
            return;
        };
        let Some(Envelope::Frame(frame)) = Envelope::open(&message.payload) else {
            return;
        };
        let Some(number) = session_of(frame) else {
            return;
        };
        let key = match self.sessions.find(agent, number) {
            Belongs::To(key) => key,
            Belongs::ToThePast => {
                let gone = Envelope::gone(number);
                let subject = self.subjects.to_agent(agent, self.id);
                return self.connection.send(subject, gone).await;
            }
            Belongs::ToTheNext { old } => {
                if let Some(old) = old {
                    self.give_up(old);
                }
                let limits = Limits::of_payload(self.connection.max_payload());
                self.sessions.open(agent, number, limits)
            }
        };
        let now = clock::now();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.link.receive(frame, now).is_err() {
            return self.give_up(key);
        }
        if self.calls.dispatcher.reachable(key) {
            self.agents_changed();
            // Its workers may be others by now.
            self.ask_to_observe(key);
        }
        while let Some(message) = self
            .sessions
            .get_mut(key)
            .and_then(|it| it.link.poll_message())
        {
            match from_bytes::<ToClient>(&message) {
                Some(message) => self.hear(key, message),
                None => return self.give_up(key),
            }
        }
    }

    /// What an agent says.
    fn hear(&mut self, key: Key, message: ToClient) {
        match message {
            ToClient::Hello { card, connection } => self.welcome(key, card, connection),
            ToClient::Sync { connection } => {
                let epoch = self.calls.dispatcher.epoch();
                self.sessions
                    .say(key, Lane::Control, &ToAgent::Synced { epoch, connection });
            }
            ToClient::Kept(epoch) => self.calls.dispatcher.kept(key, epoch),
            ToClient::Ask { delivery, time } => {
                let is_granted = self.calls.dispatcher.asked(key, delivery, time);
                let verdict = ToAgent::Verdict {
                    delivery,
                    is_granted,
                };
                self.sessions.say(key, Lane::Control, &verdict);
            }
            ToClient::Begun { delivery } => {
                if !self.calls.dispatcher.begun(key, delivery) {
                    let verdict = ToAgent::Verdict {
                        delivery,
                        is_granted: false,
                    };
                    self.sessions.say(key, Lane::Control, &verdict);
                }
            }
            ToClient::Returned { delivery } => self.calls.returned(key, delivery),
            ToClient::Fetch { piece } => {
                if let Some(chunk) = self.calls.encode(piece)
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    session.outbox.add_body(piece, chunk.0);
                }
            }
            ToClient::Need { piece, contents } => self.provide(key, piece, &contents),
            ToClient::Outcomes { piece, batch } => {
                let session = self.sessions.get_mut(key);
                // Also those of a call that nobody waits for any more.
                let contents = session.map(|it| std::mem::take(&mut it.contents));
                let contents = contents.unwrap_or_default();
                self.calls.outcomes(key, piece, batch, &contents);
            }
            ToClient::Failed { piece, error } => self.calls.failed(key, piece, &error),
            ToClient::Value { piece, value } => {
                let contents = self.sessions.get(key).map(|it| &it.contents);
                let rooms = self.calls.value(key, piece, value, contents);
                self.say_rooms(rooms);
            }
            ToClient::Content { id, bytes } => {
                if let Ok(content) = BroadcastContent::new(&bytes.0)
                    && content.id() == id
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    session.contents.insert(id, content);
                }
            }
            ToClient::Leaving => {
                self.calls.dispatcher.leaving(key);
                if let Some(session) = self.sessions.get_mut(key) {
                    session.is_leaving = true;
                }
                self.agents_changed();
            }
            ToClient::Left => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.left_at = Some(clock::now());
                }
                self.gatherings.forget(key);
            }
            ToClient::Lines(lines) => {
                if let Some(printer) = &mut self.printer {
                    let lost: u64 = lines.into_iter().map(|line| printer.print(line)).sum();
                    self.shared.lock().lines_dropped += lost;
                }
            }
            ToClient::Dump { ticket, dump } => {
                self.gatherings.add_dump(ticket, key, dump);
            }
            ToClient::Stats { ticket, stats } => {
                self.gatherings.add_stats(ticket, key, stats);
            }
            ToClient::Observed(events) => self.observing.observed(key, events),
        }
    }

    fn welcome(&mut self, key: Key, card: AgentCard, connection: u64) {
        let slots = card.slots.max(1) as usize;
        if let Some(session) = self.sessions.get_mut(key) {
            if session.card.is_some() {
                return;
            }
            session.card = Some(card);
        }
        let welcome = (self.settings).welcome(self.calls.dispatcher.epoch(), connection);
        self.sessions.say(key, Lane::Control, &welcome);
        self.ask_to_observe(key);
        self.calls.dispatcher.joined(key, slots);
        self.agents_changed();
    }

    /// The values that an agent needs for a piece.
    fn provide(&mut self, key: Key, piece: PieceId, ids: &[ContentId]) {
        let of_job = self.calls.contents_of(piece);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        for id in ids {
            let mut all = of_job.iter().chain(&self.settings.contents);
            match all.find(|it| it.id() == *id) {
                Some(content) => session.outbox.add_content(content),
                None => {
                    let message = to_bytes(&ToAgent::NoContent(*id));
                    session.link.send(Lane::Data, message);
                }
            }
        }
    }

    /// Asks all agents that can be reached.
    pub(super) fn gather(&mut self, so_far: Gathered, wanted: Wanted) {
        let sessions = self.sessions.all().filter(|(key, session)| {
            let is_there = session.card.is_some() && session.left_at.is_none();
            is_there && !self.calls.dispatcher.is_unreachable(*key)
        });
        let asked: HashSet<Key> = sessions.map(|(key, _)| key).collect();
        let until = clock::now() + GATHER_LIMIT;
        let ticket = self.gatherings.begin(so_far, asked.clone(), until);
        for key in asked {
            self.sessions
                .say(key, Lane::Control, &ToAgent::Report { ticket, wanted });
        }
    }

    /// If somebody observes the pool, this agent is to tell what its workers do.
    pub(super) fn ask_to_observe(&mut self, key: Key) {
        if let Some(wanted) = self.observing.wanted() {
            let observe = ToAgent::Observe(Some(wanted));
            self.sessions.say(key, Lane::Control, &observe);
        }
    }

    /// Agents may send so many more values.
    pub(super) fn say_rooms(&mut self, rooms: Vec<(Key, PieceId)>) {
        for (key, piece) in rooms {
            let room = ToAgent::Room { piece, values: 1 };
            self.sessions.say(key, Lane::Control, &room);
        }
    }

    /// The server says that an agent is not there. Nothing is lost for good: it may live.
    pub(super) fn unreachable(&mut self, key: Key) {
        if self.calls.dispatcher.unreachable(key) {
            self.agents_changed();
            self.observing.given_up(key, ExitReason::Crashed);
        }
        self.gatherings.forget(key);
    }

    /// An agent is no more, or says nothing.
    pub(super) fn give_up(&mut self, key: Key) {
        let Some(session) = self.sessions.give_up(key) else {
            return;
        };
        self.gatherings.forget(key);
        let reason = match session.left_at {
            Some(_) => ExitReason::Closed,
            None => ExitReason::Crashed,
        };
        self.observing.given_up(key, reason);
        self.calls.dispatcher.given_up(key, session.link.has_gap());
        self.calls.lose(|key| self.sessions.lost_machine(key));
        let dispatcher = &self.calls.dispatcher;
        self.sessions.retain_lost(|key| dispatcher.doubts(key));
        self.agents_changed();
    }

    pub(super) fn agents_changed(&self) {
        let is_there = |key| !self.calls.dispatcher.is_unreachable(key);
        let agents = self.sessions.infos(is_there);
        self.shared
            .set_agents(agents, self.calls.dispatcher.slots());
    }
}
