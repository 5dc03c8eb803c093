//! What workers do, for clients that want to know it.

use std::time::Duration;

use procpool_core::Observe;

use super::Agent;
use crate::link::Lane;
use crate::message::{ClientId, ToClient, to_bytes};

/// How often a client is told, if there is something to tell.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// While so many bytes have not come to a client, it is told nothing more. What happens meanwhile
/// waits, as long as there is room for it.
const MOST_BACKLOG: usize = 1 << 20;

impl Agent {
    /// From now on, the client wants to know this.
    pub(super) fn observe(&mut self, client: ClientId, wanted: Option<Observe>) {
        if let Some(session) = self.sessions.get_mut(client) {
            session.observes = wanted;
            self.host.observe(client, wanted);
        }
    }

    /// When clients are to be told. `None`: none wants to be.
    pub(super) fn tell_at(&self) -> Option<Duration> {
        let observes = self.sessions.all().any(|it| it.observes.is_some());
        observes.then(|| self.told + TELL_EVERY)
    }

    /// Tells clients what has happened, if it is time.
    pub(super) fn tell_what_is_seen(&mut self, now: Duration) {
        if self.tell_at().is_none_or(|at| now < at) {
            return;
        }
        self.told = now;
        self.tell_clients();
    }

    /// Tells clients what has happened.
    pub(super) fn tell_clients(&mut self) {
        for (client, session) in self.sessions.all_mut() {
            if session.observes.is_some()
                && session.link.backlog() < MOST_BACKLOG
                && let Some(seen) = self.host.seen(client)
            {
                session
                    .link
                    .send(Lane::Data, to_bytes(&ToClient::Seen(seen)));
            }
        }
    }
}
