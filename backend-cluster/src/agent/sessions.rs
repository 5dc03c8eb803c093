//! The sessions with clients: who is there, and who is no more.

use std::collections::HashMap;
use std::time::Duration;

use super::session::Session;
use crate::intake::LEASE;
use crate::link::{Lane, Limits};
use crate::message::{ClientId, ToClient, to_bytes};

/// How long a client that is not there may take to come back.
const DEAD_AFTER: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<ClientId, Session>,
    /// The number of the last session with each client.
    numbers: HashMap<ClientId, u32>,
}

impl Sessions {
    /// A new session, in place of the one that there is.
    pub(super) fn open(&mut self, client: ClientId, limits: Limits, now: Duration) {
        let number = self.numbers.entry(client).or_default();
        *number += 1;
        self.all.insert(client, Session::new(*number, limits, now));
    }

    /// The client is no more.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.all.remove(&client);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn has(&self, client: ClientId) -> bool {
        self.all.contains_key(&client)
    }

    pub(super) fn get(&self, client: ClientId) -> Option<&Session> {
        self.all.get(&client)
    }

    pub(super) fn get_mut(&mut self, client: ClientId) -> Option<&mut Session> {
        self.all.get_mut(&client)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        self.all.values()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (ClientId, &mut Session)> {
        self.all.iter_mut().map(|(client, it)| (*client, it))
    }

    /// The number of the session with this client.
    pub(super) fn number(&self, client: ClientId) -> Option<u32> {
        self.all.get(&client).map(|it| it.number)
    }

    /// Says this to a client, if there is a session with it.
    pub(super) fn say(&mut self, client: ClientId, lane: Lane, message: &ToClient) {
        if let Some(session) = self.all.get_mut(&client) {
            session.link.send(lane, to_bytes(message));
        }
    }

    /// The same to all clients.
    pub(super) fn say_to_all(&mut self, lane: Lane, message: &ToClient) {
        for session in self.all.values_mut() {
            session.link.send(lane, to_bytes(message));
        }
    }

    /// There is another connection to the server.
    pub(super) fn reconnected(&mut self) {
        for session in self.all.values_mut() {
            session.link.reconnected();
        }
    }

    /// The server says that this client is not there.
    pub(super) fn is_gone(&mut self, client: ClientId, now: Duration) {
        if let Some(session) = self.all.get_mut(&client) {
            session.gone_since.get_or_insert(now);
        }
    }

    /// How many bytes wait to be sent, or to be acknowledged.
    pub(super) fn backlog(&self) -> usize {
        self.all.values().map(|it| it.link.backlog()).sum()
    }

    /// When something is to be sent though nothing has happened.
    pub(super) fn next_timer(&self, works_for: impl Fn(ClientId) -> bool) -> Option<Duration> {
        let links = self.all.values().filter_map(|it| it.link.next_timer());
        let sessions = self.all.iter();
        let asks = sessions.map(|(client, it)| it.ask_at(works_for(*client)));
        links.chain(asks).min()
    }

    /// Asks clients that say nothing. Says which are no more.
    pub(super) fn tick(
        &mut self,
        now: Duration,
        works_for: impl Fn(ClientId) -> bool,
    ) -> Vec<ClientId> {
        let mut dead = Vec::new();
        for (client, session) in &mut self.all {
            if now >= session.ask_at(works_for(*client)) {
                session.asked = now;
                session.link.ask();
            }
            let is_gone = session.gone_since.is_some_and(|at| now > at + DEAD_AFTER);
            let never_came = !session.is_welcome && now > session.opened + LEASE;
            if is_gone || never_came && session.gone_since.is_some() {
                dead.push(*client);
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);
    const CLIENT: ClientId = 7;

    fn sessions() -> Sessions {
        let mut sessions = Sessions::default();
        sessions.open(CLIENT, Limits::of_payload(1 << 20), NOW);
        sessions.get_mut(CLIENT).unwrap().is_welcome = true;
        sessions
    }

    #[test]
    fn each_session_has_a_number_of_its_own() {
        let mut sessions = sessions();
        assert_eq!(sessions.number(CLIENT), Some(1));
        sessions.open(CLIENT, Limits::of_payload(1 << 20), NOW);
        assert_eq!(sessions.number(CLIENT), Some(2));
        sessions.remove(CLIENT);
        assert!(sessions.is_empty() && !sessions.has(CLIENT));
        assert_eq!(sessions.number(CLIENT), None);
        sessions.open(CLIENT, Limits::of_payload(1 << 20), NOW);
        assert_eq!(sessions.number(CLIENT), Some(3));
    }

    #[test]
    fn a_client_is_asked_sooner_if_there_is_work_of_it() {
        let sessions = sessions();
        let next = |works| sessions.next_timer(|_| works);
        assert_eq!(next(true), Some(NOW + SECOND));
        assert_eq!(next(false), Some(NOW + 60 * SECOND));
    }

    #[test]
    fn a_client_that_is_not_there_for_a_while_is_dead() {
        let mut sessions = sessions();
        sessions.is_gone(CLIENT, NOW);
        sessions.is_gone(CLIENT, NOW + 3 * SECOND);
        assert!(sessions.tick(NOW + 3 * SECOND, |_| true).is_empty());
        assert_eq!(sessions.tick(NOW + 4 * SECOND, |_| true), [CLIENT]);
        // Something was heard of it.
        sessions.get_mut(CLIENT).unwrap().gone_since = None;
        assert!(sessions.tick(NOW + 4 * SECOND, |_| true).is_empty());
    }

    #[test]
    fn what_is_large_comes_in_parts() {
        let mut sessions = sessions();
        let session = sessions.get_mut(CLIENT).unwrap();
        assert_eq!(session.add_body(1, b"ab", false), None);
        assert_eq!(session.add_body(2, b"x", true), Some(b"x".to_vec()));
        assert_eq!(session.add_body(1, b"c", true), Some(b"abc".to_vec()));
        assert_eq!(session.add_body(1, b"", true), Some(Vec::new()));
    }
}
