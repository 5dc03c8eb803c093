//! What the client knows of the queue that it publishes to.

use std::collections::HashMap;
use std::time::Duration;

use crate::message::DeliveryId;

/// How long an acknowledgement of the queue's is waited for.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);
/// How long nothing is published once the queue was full.
const FULL_FOR: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    is_made: bool,
    is_being_made: bool,
    /// Publishes that were not acknowledged, and since when.
    open: HashMap<DeliveryId, Duration>,
    /// The queue is full, and is not asked again until then.
    full_until: Duration,
}

impl Publishing {
    /// The queue is to be made. Says whether somebody makes it already.
    pub(super) fn make(&mut self) -> bool {
        std::mem::replace(&mut self.is_being_made, true)
    }

    /// Whoever makes it has ended: it is there, or not.
    pub(super) fn made(&mut self, is_there: bool) {
        self.is_being_made = false;
        self.is_made |= is_there;
    }

    /// There is another connection, in which it may be gone.
    pub(super) fn reconnected(&mut self) {
        self.is_made = false;
        self.open.clear();
    }

    /// Whether anything may be published now.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.is_made && now >= self.full_until
    }

    /// This was published now.
    pub(super) fn sent(&mut self, delivery: DeliveryId, now: Duration) {
        self.open.insert(delivery, now);
    }

    /// The server has answered. `false`: that is not waited for any more.
    pub(super) fn answered(&mut self, delivery: DeliveryId) -> bool {
        self.open.remove(&delivery).is_some()
    }

    /// The queue has no room.
    pub(super) fn is_full(&mut self, now: Duration) {
        self.full_until = now + FULL_FOR;
    }

    /// Whether an answer has taken too long. Then none is waited for.
    pub(super) fn take_late(&mut self, now: Duration) -> bool {
        let is_late = self.open.values().any(|at| now > *at + PUBLISH_LIMIT);
        if is_late {
            self.open.clear();
        }
        is_late
    }
}

/// The queue does not take a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublishError {
    pub(super) is_full: bool,
    pub(super) text: String,
}

impl PublishError {
    /// What an answer of the server's says, if that is an error.
    pub(super) fn of(answer: &[u8]) -> Option<Self> {
        let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
        let error = answer.get("error")?;
        let text = error.get("description").and_then(|it| it.as_str());
        let text = text.unwrap_or("it does not say why").to_owned();
        Some(Self {
            is_full: text.contains("maximum"),
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn nothing_is_published_without_a_queue() {
        let mut publishing = Publishing::default();
        assert!(!publishing.make());
        assert!(publishing.make());
        publishing.made(false);
        assert!(!publishing.is_open(NOW));
        assert!(!publishing.make());
        publishing.made(true);
        assert!(publishing.is_open(NOW));
        publishing.is_full(NOW);
        assert!(!publishing.is_open(NOW));
        assert!(publishing.is_open(NOW + FULL_FOR));
        publishing.reconnected();
        assert!(!publishing.is_open(NOW + FULL_FOR));
    }

    #[test]
    fn an_answer_is_waited_for_until_it_is_late() {
        let mut publishing = Publishing::default();
        publishing.sent(1, NOW);
        publishing.sent(2, NOW);
        assert!(publishing.answered(1));
        assert!(!publishing.answered(1));
        assert!(!publishing.take_late(NOW + PUBLISH_LIMIT));
        let late = NOW + PUBLISH_LIMIT + Duration::from_nanos(1);
        assert!(publishing.take_late(late));
        assert!(!publishing.take_late(late));
        assert!(!publishing.answered(2));
    }

    #[test]
    fn an_error_is_what_the_server_says() {
        let full = br#"{"error":{"code":503,"description":"maximum messages exceeded"}}"#;
        assert!(PublishError::of(full).is_some_and(|it| it.is_full));
        let other = PublishError::of(br#"{"error":{"description":"no"}}"#);
        let text = "no".to_owned();
        assert_eq!(
            other,
            Some(PublishError {
                is_full: false,
                text
            })
        );
        for none in [&br#"{"stream":"S","seq":1}"#[..], b"", b"{"] {
            assert_eq!(PublishError::of(none), None);
        }
    }
}
