//! What the server says, and what it is asked for.

use async_nats::{Event, Message};
use procpool_core::{TaskError, TaskErrorKind};

use super::Client;
use super::command::Command;
use super::envelope::Envelope;
use super::publishing::PublishError;
use crate::clock;
use crate::nats::{is_unheard, make_queue};
use crate::programs::publish;

impl Client {
    pub(super) fn make_queue(&mut self) {
        if self.publishing.make() {
            return;
        }
        let client = self.connection.client().clone();
        let (subjects, in_file) = (self.subjects.clone(), self.settings.in_file);
        let (commands, connection) = (self.commands.clone(), self.connections);
        let id = self.id;
        tokio::task::spawn_local(async move {
            let made = make_queue(client, id, subjects, in_file).await;
            let _ = commands.send(Command::Made { connection, made });
        });
    }

    /// Puts this program into the server's store again, if that has forgotten it.
    pub(super) fn publish_program(&self) {
        if let Some(manifest) = self.settings.program.clone() {
            let (client, commands) = (self.connection.client().clone(), self.commands.clone());
            tokio::task::spawn_local(async move {
                // Without a thread there is nobody to tell.
                let _ = commands.send(Command::Published(publish(client, manifest).await));
            });
        }
    }

    /// Asks who is there. `is_new`: the queue has forgotten what agents have asked it for.
    pub(super) async fn look_for_agents(&mut self, is_new: bool) {
        let mut question = self.id.to_le_bytes().to_vec();
        question.push(u8::from(is_new));
        self.connection.send(self.subjects.who(), question).await;
    }

    /// What is to be done first in a new connection.
    pub(super) async fn notice_connection(&mut self) {
        if !self.connection.is_new() {
            return;
        }
        self.connections += 1;
        self.timeouts.reconnected();
        self.publishing.reconnected();
        self.calls.dispatcher.reconnected();
        self.agents_changed();
        self.sessions.reconnected();
        self.make_queue();
        self.publish_program();
        self.look_for_agents(false).await;
    }

    pub(super) fn event(&mut self, event: Option<Event>) {
        match event {
            // If there is another one already, this is old news, and must not stop anything.
            Some(Event::Disconnected) if !self.connection.is_up() => {
                self.calls.dispatcher.disconnected();
                self.timeouts.disconnected(clock::now());
            }
            Some(Event::ServerError(error)) => {
                let text = error.to_string();
                if text.to_lowercase().contains("permissions violation") {
                    let url = &self.settings.url;
                    let text = format!("the NATS server at {url} does not permit it: {text}");
                    self.refuse(&text);
                }
            }
            _ => {}
        }
    }

    /// An answer of the server's.
    pub(super) fn answer(&mut self, message: &Message) {
        let Some(token) = self.connection.token(message) else {
            return;
        };
        if token == "o" {
            // An agent, of whatever build.
            if message.status.is_none() {
                self.timeouts.has_build(&message.payload);
            }
            return;
        }
        let number = token.get(1..).and_then(|it| it.parse::<u64>().ok());
        match (token.as_bytes().first(), number) {
            // An agent was asked, and is not there.
            (Some(b'a'), Some(key)) if is_unheard(message) => self.unreachable(key),
            // The same of what was sent to it without the queue.
            (Some(b'x'), Some(delivery)) if is_unheard(message) => {
                if let Some(key) = self.calls.dispatcher.was_sent_to(delivery) {
                    self.calls.returned(key, delivery);
                    self.unreachable(key);
                }
            }
            (Some(b'd'), Some(delivery)) => {
                if !self.publishing.answered(delivery) {
                    return;
                }
                if is_unheard(message) {
                    // There is no queue, and nothing in it.
                    self.calls.dispatcher.reconnected();
                    self.agents_changed();
                    self.make_queue();
                } else if let Some(error) = PublishError::of(&message.payload) {
                    if error.is_full {
                        self.publishing.is_full(clock::now());
                        self.calls.dispatcher.refused(delivery);
                    } else {
                        self.fail_all(&format!("the queue refuses it: {}", error.text));
                    }
                }
            }
            _ => {}
        }
    }

    /// An agent says that it is there.
    pub(super) async fn hello(&mut self, message: &Message) {
        let Ok(bytes) = <[u8; 8]>::try_from(&message.payload[..]) else {
            return;
        };
        let agent = u64::from_le_bytes(bytes);
        if !self.sessions.has_agent(agent) {
            let subject = self.subjects.to_agent(agent, self.id);
            self.connection.send(subject, Envelope::knock()).await;
        }
    }

    /// The server does not do what this needs.
    pub(super) fn refuse(&mut self, text: &str) {
        match self.ready.take() {
            Some(ready) => {
                // Who has built the pool gets none.
                let _ = ready.send(Err(text.to_owned()));
                self.is_over = true;
            }
            None => self.fail_all(text),
        }
        self.timeouts.refused(text);
    }

    /// Whatever has no outcome fails so.
    pub(super) fn fail_all(&mut self, text: &str) {
        let error = TaskError::other(TaskErrorKind::Launch, text);
        self.calls.finish_all(&error);
    }
}
