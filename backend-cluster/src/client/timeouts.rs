//! How long calls wait for agents, and for the server.

use std::time::Duration;

/// How many other builds are named.
const MOST_BUILDS: usize = 8;

/// See the module. It says what calls end with that have waited for too long.
#[derive(Debug)]
pub(super) struct Timeouts {
    agents_timeout: Duration,
    server_timeout: Duration,
    /// The server's address, for people.
    url: String,
    /// This program's build.
    build: String,
    /// Since when there is no connection.
    down_since: Option<Duration>,
    /// Since when there is work and no connection.
    stranded_since: Option<Duration>,
    /// Since when there is work and no agent.
    alone_since: Option<Duration>,
    /// When it was asked last which builds there are, since there is no agent.
    builds_asked: Duration,
    asks_builds: bool,
    other_builds: Vec<String>,
    /// What the server has refused last.
    refusal: Option<String>,
    /// The server was this pool's own, and has ended like this.
    server_end: Option<String>,
}

/// How things are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    pub(super) is_up: bool,
    /// There is work.
    pub(super) waits: bool,
    /// There is an agent that can be reached.
    pub(super) has_agents: bool,
}

impl Timeouts {
    pub(super) fn new(limits: (Duration, Duration), url: &str, build: &str) -> Self {
        Self {
            agents_timeout: limits.0,
            server_timeout: limits.1,
            url: url.to_owned(),
            build: build.to_owned(),
            down_since: None,
            stranded_since: None,
            alone_since: None,
            builds_asked: Duration::ZERO,
            asks_builds: false,
            other_builds: Vec::new(),
            refusal: None,
            server_end: None,
        }
    }

    /// The connection is lost.
    pub(super) fn disconnected(&mut self, now: Duration) {
        self.down_since.get_or_insert(now);
    }

    /// There is one.
    pub(super) fn reconnected(&mut self) {
        self.down_since = None;
    }

    /// The server does not do what this needs.
    pub(super) fn refused(&mut self, text: &str) {
        self.refusal = Some(text.to_owned());
    }

    /// The pool's own server has ended like this.
    pub(super) fn server_ended(&mut self, status: &str) {
        self.server_end = Some(format!(
            "the NATS server that this pool has started has ended ({status}), and its queue with \
             it: build another pool"
        ));
    }

    /// Somebody says which build an agent is of.
    pub(super) fn has_build(&mut self, build: &[u8]) {
        if let Ok(build) = std::str::from_utf8(build)
            && build != self.build
            && (1..=64).contains(&build.len())
            && self.other_builds.len() < MOST_BUILDS
            && build.bytes().all(|it| it.is_ascii_alphanumeric())
            && !self.other_builds.iter().any(|it| it == build)
        {
            self.other_builds.push(build.to_owned());
        }
    }

    /// Whether it is to be asked now which builds there are.
    pub(super) fn take_asks_builds(&mut self) -> bool {
        std::mem::take(&mut self.asks_builds)
    }

    /// What all calls end with, if they have waited for too long.
    pub(super) fn check(&mut self, now: Duration, situation: Situation) -> Option<String> {
        let Situation {
            is_up,
            waits,
            has_agents,
        } = situation;
        if !is_up {
            self.down_since.get_or_insert(now);
        }
        if !waits || has_agents {
            self.alone_since = None;
        } else if let Some(failure) = self.check_agents(now) {
            return Some(failure);
        }
        if is_up || !waits {
            self.stranded_since = None;
            return None;
        }
        if let Some(end) = &self.server_end {
            return Some(end.clone());
        }
        if now <= *self.stranded_since.get_or_insert(now) + self.server_timeout {
            return None;
        }
        self.stranded_since = None;
        Some(format!(
            "there was no connection to the NATS server at {} for {:?}",
            self.url, self.server_timeout
        ))
    }

    fn check_agents(&mut self, now: Duration) -> Option<String> {
        if self.alone_since.is_none() {
            self.other_builds.clear();
            self.builds_asked = Duration::ZERO;
        }
        let since = *self.alone_since.get_or_insert(now);
        // Those, too, come at any time.
        if now > self.builds_asked + self.agents_timeout / 4 {
            self.builds_asked = now;
            self.asks_builds = true;
        }
        if now <= since + self.agents_timeout || self.down_since.is_some() {
            return None;
        }
        self.alone_since = None;
        let mut others = match &self.other_builds[..] {
            [] => String::new(),
            builds => format!("; there are agents of other builds: {}", builds.join(", ")),
        };
        if let Some(refusal) = &self.refusal {
            others = format!("{others}; {refusal}");
        }
        Some(format!(
            "there was no agent for build {} at {} in {:?}: start this very executable with \
             PROCPOOL_AGENT={} on some machine{others}",
            self.build, self.url, self.agents_timeout, self.url,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    const ALONE: Situation = Situation {
        is_up: true,
        waits: true,
        has_agents: false,
    };
    const STRANDED: Situation = Situation {
        is_up: false,
        waits: true,
        has_agents: true,
    };

    fn timeouts() -> Timeouts {
        Timeouts::new((4 * SECOND, 2 * SECOND), "nats://host", "abc")
    }

    #[test]
    fn work_without_agents_ends() {
        let mut timeouts = timeouts();
        assert_eq!(timeouts.check(NOW, ALONE), None);
        assert!(timeouts.take_asks_builds());
        assert!(!timeouts.take_asks_builds());
        for build in ["abc", "def", "def", "not one", ""] {
            timeouts.has_build(build.as_bytes());
        }
        timeouts.refused("it does not like us");
        assert_eq!(timeouts.check(NOW + 4 * SECOND, ALONE), None);
        assert!(timeouts.take_asks_builds());
        let text = timeouts.check(NOW + 5 * SECOND, ALONE).unwrap();
        for part in ["build abc", "4s", "builds: def", "it does not like us"] {
            assert!(text.contains(part), "{text}");
        }
        // The next ones wait anew.
        assert_eq!(timeouts.check(NOW + 6 * SECOND, ALONE), None);
    }

    #[test]
    fn an_agent_that_comes_ends_the_wait() {
        let mut timeouts = timeouts();
        let has_agents = true;
        for second in 0..100 {
            let now = NOW + second * SECOND;
            assert_eq!(timeouts.check(now, ALONE), None);
            let with_agents = Situation {
                has_agents,
                ..ALONE
            };
            assert_eq!(timeouts.check(now, with_agents), None);
        }
    }

    #[test]
    fn work_without_a_server_ends() {
        let mut timeouts = timeouts();
        assert_eq!(timeouts.check(NOW, STRANDED), None);
        assert_eq!(timeouts.check(NOW + 2 * SECOND, STRANDED), None);
        let text = timeouts.check(NOW + 3 * SECOND, STRANDED).unwrap();
        assert!(
            text.contains("no connection") && text.contains("2s"),
            "{text}"
        );
        // Without a server, agents are not missed.
        let has_agents = false;
        let both = Situation {
            has_agents,
            ..STRANDED
        };
        let mut timeouts = self::timeouts();
        assert_eq!(timeouts.check(NOW, both), None);
        let text = timeouts.check(NOW + 100 * SECOND, both).unwrap();
        assert!(text.contains("no connection"), "{text}");
    }

    #[test]
    fn without_its_own_server_nothing_waits() {
        let mut timeouts = timeouts();
        timeouts.server_ended("signal: 9");
        assert_eq!(timeouts.check(NOW, ALONE), None);
        let text = timeouts.check(NOW, STRANDED).unwrap();
        assert!(text.contains("has ended (signal: 9)"), "{text}");
    }
}
