//! What an agent has asked the queue for.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Message;

/// How long a request waits at the server. It is made again after that: seldom, so that an idle
/// agent sends nothing.
const EXPIRES: Duration = Duration::from_secs(300);

/// The requests that are open.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    open: HashMap<u64, usize>,
    last: u64,
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
        self.open.values().sum()
    }

    /// A request for so many deliveries: its token, and what it says.
    pub(crate) fn ask(&mut self, deliveries: usize) -> (String, Vec<u8>) {
        self.last += 1;
        self.open.insert(self.last, deliveries);
        let nanoseconds = EXPIRES.as_nanos();
        let request = format!(r#"{{"batch":{deliveries},"expires":{nanoseconds}}}"#);
        (format!("p{}", self.last), request.into_bytes())
    }

    /// An answer with such a token has come.
    pub(crate) fn given(&mut self, token: &str, message: &Message) -> Given {
        let Some(number) = token.strip_prefix('p').and_then(|it| it.parse().ok()) else {
            return Given::Nothing;
        };
        if let Some(status) = message.status {
            // 100 is a heartbeat.
            if status.as_u16() == 100 {
                return Given::Nothing;
            }
            self.open.remove(&number);
            return Given::Over {
                is_refused: status.as_u16() != 408,
            };
        }
        if let Some(left) = self.open.get_mut(&number) {
            *left -= 1;
            if *left == 0 {
                self.open.remove(&number);
            }
        }
        match message.reply.as_deref().and_then(times_given) {
            Some(time) => Given::Delivery { time },
            None => Given::Nothing,
        }
    }

    /// The connection was lost, and the server has forgotten them.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
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
        for other in ["", "$JS.ACK", "a.b.c.d.e.f.g.h.i", "$JS.ACK.S.agents.x.1.1.1.1"] {
            assert_eq!(times_given(other), None);
        }
    }

    #[test]
    fn what_was_asked_for_is_counted() {
        let mut pulls = Pulls::default();
        let (token, request) = pulls.ask(2);
        assert!(request.starts_with(br#"{"batch":2,"#));
        assert_eq!((token.as_str(), pulls.open()), ("p1", 2));
        pulls.ask(1);
        assert_eq!(pulls.open(), 3);
        pulls.forget();
        assert_eq!(pulls.open(), 0);
    }
}
