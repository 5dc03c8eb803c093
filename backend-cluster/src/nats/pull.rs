//! What an agent has asked the queue for.

use std::time::Duration;

use async_nats::Message;

/// How long a request waits at the server. It is made again after that: seldom, so that an idle
/// agent sends nothing.
const EXPIRES: Duration = Duration::from_secs(300);

/// The requests that are open. Each is for one delivery: what comes does not say which request it
/// answers.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    open: usize,
}

/// What an answer to a request is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A delivery, given out for the nth time.
    Delivery { time: u64 },
    /// The request has ended. `is_refused`: there is no queue, or it does not want any requests.
    Over { is_refused: bool },
    /// Nothing that matters.
    Nothing,
}

impl Pulls {
    /// How many deliveries may come.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// A request for one more delivery.
    pub(crate) fn ask(&mut self) -> Vec<u8> {
        self.open += 1;
        let nanoseconds = EXPIRES.as_nanos();
        format!(r#"{{"batch":1,"expires":{nanoseconds}}}"#).into_bytes()
    }

    /// An answer has come.
    pub(crate) fn given(&mut self, message: &Message) -> Given {
        if let Some(status) = message.status {
            // 100 is a heartbeat.
            if status.as_u16() == 100 {
                return Given::Nothing;
            }
            self.open = self.open.saturating_sub(1);
            return Given::Over {
                is_refused: status.as_u16() != 408,
            };
        }
        match message.reply.as_deref().and_then(times_given) {
            Some(time) => {
                self.open = self.open.saturating_sub(1);
                Given::Delivery { time }
            }
            None => Given::Nothing,
        }
    }

    /// The connection was lost, and the server has forgotten them.
    pub(crate) fn forget(&mut self) {
        self.open = 0;
    }
}

/// How often a delivery was given out that is acknowledged at this subject:
/// `$JS.ACK.<stream>.<consumer>.<times>.…`, or with a domain and an account before the stream.
fn times_given(reply: &str) -> Option<u64> {
    let parts: Vec<&str> = reply.split('.').collect();
    if parts.get(..2) != Some(&["$JS", "ACK"]) {
        return None;
    }
    let at = match parts.len() {
        9 => 4,
        11.. => 6,
        _ => return None,
    };
    parts[at].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_how_often_it_was_given() {
        let short = "$JS.ACK.S.agents.3.10.11.1700000000000000000.0";
        assert_eq!(times_given(short), Some(3));
        let long = "$JS.ACK.domain.hash.S.agents.2.10.11.1700000000000000000.0.x";
        assert_eq!(times_given(long), Some(2));
        for other in [
            "",
            "$JS.ACK",
            "a.b.c.d.e.f.g.h.i",
            "$JS.ACK.S.agents.x.1.1.1.1",
        ] {
            assert_eq!(times_given(other), None);
        }
    }

    #[test]
    fn what_was_asked_for_is_counted() {
        let mut pulls = Pulls::default();
        assert!(pulls.ask().starts_with(br#"{"batch":1,"#));
        pulls.ask();
        assert_eq!(pulls.open(), 2);
        pulls.forget();
        assert_eq!(pulls.open(), 0);
    }
}
