//! What happens to workers, for clients whose pools somebody observes.

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
    pub(super) fn tell_if_due(&mut self, now: Duration) {
        if self.tell_at().is_some_and(|at| at <= now) {
            self.told = now;
            self.tell(MOST_BACKLOG);
        }
    }

    /// Tells clients all that is left. Their pools have ended.
    pub(super) fn tell_the_rest(&mut self) {
        self.tell(usize::MAX);
    }

    /// Tells clients what has happened, unless so many bytes wait for them.
    fn tell(&mut self, most: usize) {
        for (client, session) in self.sessions.all_mut() {
            while session.observes.is_some()
                && session.link.backlog() < most
                && let Some(events) = self.host.take_observed(client)
            {
                let message = to_bytes(&ToClient::Observed(events));
                session.link.send(Lane::Data, message);
            }
        }
    }
}
