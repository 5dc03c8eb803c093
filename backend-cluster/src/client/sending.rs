//! What goes to agents and into the queue.

use std::time::Duration;

use procpool_core::{TaskError, TaskErrorKind};

use super::Client;
use super::envelope::Envelope;
use super::sessions::Key;
use crate::clock;
use crate::dispatcher::Action;
use crate::link::Lane;
use crate::message::{Delivery, DeliveryId, Piece, PieceId, ToAgent, to_bytes};

/// What is larger is not sent through the queue.
const INLINE: usize = 512 * 1024;

impl Client {
    /// Does what the dispatcher says, and sends what the links have.
    pub(super) async fn act(&mut self) {
        if !self.connection.is_up() {
            return;
        }
        let may_publish = self.publishing.is_open(clock::now());
        while let Some(action) = self.calls.dispatcher.poll_action(may_publish) {
            match action {
                Action::Publish {
                    delivery,
                    epoch,
                    pieces,
                } => self.publish(delivery, epoch, &pieces).await,
                Action::Send {
                    agent,
                    delivery,
                    oldest,
                    epoch,
                    piece,
                } => self.send(agent, delivery, oldest, epoch, piece).await,
                Action::TellEpoch { agent, epoch } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Epoch(epoch));
                }
                Action::Recall { agent, piece } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Recall { piece });
                }
                Action::Cancel { agent, piece, kill } => {
                    self.sessions
                        .say(agent, Lane::Control, &ToAgent::Cancel { piece, kill });
                }
            }
        }
        self.calls.lose(|key| self.sessions.lost_machine(key));
        let now = clock::now();
        for (key, session) in self.sessions.all_mut() {
            session.outbox.feed(&mut session.link);
            while let Some(frame) = session.link.poll_frame(now) {
                let subject = self.subjects.to_agent(session.agent, self.id);
                let token = format!("a{key}");
                let frame = Envelope::frame(frame);
                self.connection.request(subject, &token, frame).await;
            }
        }
    }

    /// To an agent itself. It is sent once: if that is lost, the agent says that it has not got it,
    /// or the server that nobody was there.
    async fn send(
        &self,
        key: Key,
        delivery: DeliveryId,
        oldest: DeliveryId,
        epoch: u64,
        piece: PieceId,
    ) {
        // Otherwise it was given up, and so was this.
        if let Some(session) = self.sessions.get(key) {
            let message = self.encode(delivery, epoch, &[piece]);
            let message = Envelope::direct(session.number, oldest, message);
            let subject = self.subjects.to_agent(session.agent, self.id);
            let token = format!("x{delivery}");
            self.connection.request(subject, &token, message).await;
        }
    }

    async fn publish(&mut self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) {
        let message = self.encode(delivery, epoch, pieces);
        self.publishing.sent(delivery, clock::now());
        let token = format!("d{delivery}");
        let id = format!("{:016x}.{delivery}", self.id);
        let subject = self.subjects.work(self.id);
        self.connection.enqueue(subject, &token, &id, message).await;
    }

    /// A delivery as it travels.
    fn encode(&self, delivery: DeliveryId, epoch: u64, pieces: &[PieceId]) -> Vec<u8> {
        let most = INLINE.min(self.connection.max_payload() / 2);
        let mut bytes = 0;
        let mut sent = Vec::with_capacity(pieces.len());
        for id in pieces {
            let Some((_, _, attempt, retries)) = self.calls.dispatcher.piece(*id) else {
                continue;
            };
            let Some(chunk) = self.calls.encode(*id) else {
                continue;
            };
            bytes += chunk.0.len() + 64;
            sent.push(Piece {
                id: *id,
                is_last_attempt: attempt >= retries,
                chunk: (bytes <= most).then_some(chunk),
            });
        }
        to_bytes(&Delivery {
            id: delivery,
            epoch,
            pieces: sent,
        })
    }

    /// Says goodbye.
    pub(super) async fn leave(&mut self) {
        let error = TaskError::other(TaskErrorKind::Closed, "the pool is closed");
        self.calls.finish_all(&error);
        if self.connection.is_up() {
            let now = clock::now();
            for (_, session) in self.sessions.all_mut() {
                session.link.send(Lane::Control, to_bytes(&ToAgent::Bye));
                while let Some(frame) = session.link.poll_frame(now) {
                    let subject = self.subjects.to_agent(session.agent, self.id);
                    let frame = Envelope::frame(frame);
                    self.connection.send(subject, frame).await;
                }
                let subject = self.subjects.to_agent(session.agent, self.id);
                self.connection.send(subject, Envelope::bye()).await;
            }
            self.connection.flush(Duration::from_millis(500)).await;
        }
    }
}
