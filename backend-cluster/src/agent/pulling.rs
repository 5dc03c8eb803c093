//! How many deliveries the queue is asked for, and when.

use std::time::Duration;

use async_nats::Message;

use crate::nats::{Given, Pulls};

/// How long an agent waits before it asks a queue again that is not there.
const AGAIN: Duration = Duration::from_millis(200);
/// How many bytes may wait to be sent before nothing more is taken.
const BACKLOG: usize = 32 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pulling {
    pulls: Pulls,
    /// The queue is not asked before then.
    at: Duration,
}

impl Pulling {
    /// An answer of the queue's has come.
    pub(super) fn given(&mut self, message: &Message, now: Duration) -> Given {
        let given = self.pulls.given(message);
        if given == (Given::Over { is_refused: true }) {
            self.at = now + AGAIN;
        }
        given
    }

    /// The queue knows nothing of what it was asked for.
    pub(super) fn forget(&mut self) {
        self.pulls.forget();
    }

    /// There may be a queue now.
    pub(super) fn ask_at_once(&mut self) {
        self.at = Duration::ZERO;
    }

    /// How many deliveries are missing. `free`: how many there is room for. `backlog`: how many
    /// bytes wait to be sent.
    fn missing(&self, free: usize, backlog: usize) -> usize {
        if backlog > BACKLOG {
            return 0;
        }
        free.saturating_sub(self.pulls.open())
    }

    /// What the queue is to be asked now.
    pub(super) fn requests(&mut self, free: usize, backlog: usize, now: Duration) -> Vec<Vec<u8>> {
        if now < self.at {
            return Vec::new();
        }
        let missing = self.missing(free, backlog);
        (0..missing).map(|_| self.pulls.ask()).collect()
    }

    /// When it is to be asked, if not now.
    pub(super) fn next_time(&self, free: usize, backlog: usize, now: Duration) -> Option<Duration> {
        (self.at > now && self.missing(free, backlog) > 0).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn refusal() -> Message {
        Message {
            subject: "_INBOX.agent".into(),
            reply: None,
            payload: Default::default(),
            headers: None,
            status: Some(StatusCode::NO_RESPONDERS),
            description: None,
            length: 0,
        }
    }

    #[test]
    fn there_are_as_many_requests_as_there_is_room() {
        let mut pulling = Pulling::default();
        assert_eq!(pulling.requests(3, BACKLOG + 1, NOW).len(), 0);
        assert_eq!(pulling.requests(3, 0, NOW).len(), 3);
        assert_eq!(pulling.requests(3, 0, NOW).len(), 0);
        assert_eq!(pulling.requests(4, 0, NOW).len(), 1);
        pulling.forget();
        assert_eq!(pulling.requests(4, 0, NOW).len(), 4);
        assert_eq!(pulling.next_time(5, 0, NOW), None);
    }

    #[test]
    fn a_queue_that_is_not_there_is_asked_later() {
        let mut pulling = Pulling::default();
        pulling.requests(1, 0, NOW);
        let given = pulling.given(&refusal(), NOW);
        assert_eq!(given, Given::Over { is_refused: true });
        assert_eq!(pulling.requests(1, 0, NOW).len(), 0);
        assert_eq!(pulling.next_time(1, 0, NOW), Some(NOW + AGAIN));
        assert_eq!(pulling.next_time(0, 0, NOW), None);
        assert_eq!(pulling.requests(1, 0, NOW + AGAIN).len(), 1);
        pulling.given(&refusal(), NOW);
        pulling.ask_at_once();
        assert_eq!(pulling.requests(1, 0, NOW).len(), 1);
    }
}
