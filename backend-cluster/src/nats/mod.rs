//! The connection to the server, as clients and agents need it: raw messages, and a count of how
//! often it was made.

mod advice;
mod pull;
mod queue;
mod role;
mod server_options;
mod subjects;

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, Event, HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) use self::pull::{Given, Pulls};
pub(crate) use self::queue::make_queue;
pub(crate) use self::role::Role;
pub(crate) use self::server_options::{ConnectError, ServerOptions};
pub(crate) use self::subjects::{Subjects, last_number};

/// How many messages may wait between a subscription and who reads it. The links see to it that
/// there are fewer.
const CAPACITY: usize = 1 << 17;

/// A connection, which comes back by itself.
pub(crate) struct Connection {
    client: Client,
    /// How often it was made, as far as that was noticed.
    seen: u64,
    events: UnboundedReceiver<Event>,
    /// What answers to our messages are sent to; a token follows.
    inbox: String,
}

impl Connection {
    /// Connects, and subscribes to answers.
    pub(crate) async fn open(
        options: &ServerOptions,
        role: Role,
        name: &str,
    ) -> Result<(Self, Subscriber), ConnectError> {
        let (sender, events) = unbounded_channel();
        let client = options
            .connect(role, name, move |event| {
                // Who has gone does not want to know.
                let _ = sender.send(event);
                std::future::ready(())
            })
            .await?;
        let inbox = client.new_inbox();
        let answers = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| ConnectError::lost(options, &error))?;
        let connection = Self {
            seen: client.statistics().connects.load(Ordering::SeqCst),
            client,
            events,
            inbox,
        };
        Ok((connection, answers))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What the client library has to say.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same, of what it has said already.
    pub(crate) fn said(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// What the server has not permitted, as far as that was said and nobody has read it.
    pub(crate) fn forbidden(&mut self) -> Option<String> {
        let said = std::iter::from_fn(|| self.said());
        let mut errors = said.filter_map(|event| match event {
            Event::ServerError(error) => Some(error.to_string()),
            _ => None,
        });
        errors.find(|text| text.to_lowercase().contains("permissions violation"))
    }

    /// Whether it was made anew since this was asked last. To be asked before a message is looked
    /// at: what comes in a new connection may come from a server that has forgotten everything.
    pub(crate) fn is_new(&mut self) -> bool {
        let connects = self.client.statistics().connects.load(Ordering::SeqCst);
        std::mem::replace(&mut self.seen, connects) != connects
    }

    /// Whether messages go out. Otherwise they would pile up.
    pub(crate) fn is_up(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The largest message that the server takes.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Sends a message. The library keeps it until the connection is back; it is lost if that
    /// breaks while it is under way.
    pub(crate) async fn send(&self, subject: String, payload: Vec<u8>) {
        // It fails where the subject or the payload is none: those here are.
        let _ = self.client.publish(subject, payload.into()).await;
    }

    /// Sends a message whose answers come with this token.
    pub(crate) async fn request(&self, subject: String, token: &str, payload: Vec<u8>) {
        let inbox = format!("{}.{token}", self.inbox);
        let sent = self
            .client
            .publish_with_reply(subject, inbox, payload.into());
        // As above.
        let _ = sent.await;
    }

    /// The same with an identifier, so that the queue stores it once.
    pub(crate) async fn enqueue(&self, subject: String, token: &str, id: &str, payload: Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let inbox = format!("{}.{token}", self.inbox);
        let payload = Bytes::from(payload);
        let sent = self
            .client
            .publish_with_reply_and_headers(subject, inbox, headers, payload);
        // As above.
        let _ = sent.await;
    }

    /// The token of an answer.
    pub(crate) fn token<'a>(&self, message: &'a Message) -> Option<&'a str> {
        let subject = message.subject.as_str();
        subject.strip_prefix(&self.inbox)?.strip_prefix('.')
    }

    /// Sees to it that all that was sent is with the server, or gives up after this time.
    pub(crate) async fn flush(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.client.flush()).await;
    }
}

/// Whether an answer says that nobody listens where the request went.
pub(crate) fn is_unheard(message: &Message) -> bool {
    message.status == Some(StatusCode::NO_RESPONDERS)
}

/// The capacity of subscriptions, for the options of a connection.
pub(crate) const fn capacity() -> usize {
    CAPACITY
}
