//! What was done to agents, and when: what explains that one was lost, and nothing else does.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::harness::notes;

/// An agent by its number. It is called `m` and that, and there is no second one.
pub(crate) type AgentNumber = u32;

/// When something happened, in milliseconds, as notes of runs have it.
type Time = u32;

/// The trouble of agents whose process is stopped.
pub(crate) const STOPPED: &str = "stopped";

/// So long an agent must have been out of reach that is lost alive: the lease, of which a part may
/// have passed before.
const SILENCE: Time = 4000;

/// Two troubles this soon after each other are one: what has lost its connection needs a moment to
/// have it again.
const RECOVERY: Time = 1500;

/// How long a word that an agent says may take to be heard.
const ON_ITS_WAY: Time = 1000;

/// See the module.
#[derive(Default)]
pub(crate) struct Agents {
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    killed: HashMap<AgentNumber, Time>,
    troubles: Vec<Trouble>,
}

/// Who cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    These(HashSet<AgentNumber>),
    /// The server is away, or this program itself.
    All,
}

struct Trouble {
    whom: Whom,
    what: &'static str,
    from: Time,
    /// `None`: it lasts.
    until: Option<Time>,
}

impl Trouble {
    fn concerns(&self, agent: AgentNumber) -> bool {
        match &self.whom {
            Whom::All => true,
            Whom::These(agents) => agents.contains(&agent),
        }
    }

    fn end(&self) -> Time {
        self.until.unwrap_or_else(notes::now)
    }
}

impl Record {
    /// When this agent was out of reach, each time from when to when.
    fn silences(&self, agent: AgentNumber) -> Vec<(Time, Time)> {
        let of_agent = self.troubles.iter().filter(|it| it.concerns(agent));
        let mut all: Vec<(Time, Time)> = of_agent.map(|it| (it.from, it.end())).collect();
        all.sort_unstable();
        let mut joined: Vec<(Time, Time)> = Vec::new();
        for (from, until) in all {
            match joined.last_mut() {
                Some(last) if from <= last.1 + RECOVERY => last.1 = last.1.max(until),
                _ => joined.push((from, until)),
            }
        }
        joined
    }

    /// Whether it was lost at this time or later.
    fn is_lost_since(&self, agent: AgentNumber, since: Time) -> bool {
        let is_killed = self.killed.get(&agent).is_some_and(|at| *at >= since);
        let mut silences = self.silences(agent).into_iter();
        is_killed || silences.any(|(from, until)| until >= since && until - from >= SILENCE)
    }
}

impl Agents {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This agent is about to be killed.
    pub(crate) fn kill(&self, agent: AgentNumber) {
        self.record().killed.insert(agent, notes::now());
    }

    /// These are about to be out of reach. The answer is the trouble's number.
    pub(crate) fn trouble(&self, whom: Whom, what: &'static str) -> usize {
        let mut record = self.record();
        record.troubles.push(Trouble {
            whom,
            what,
            from: notes::now(),
            until: None,
        });
        record.troubles.len() - 1
    }

    /// That trouble is over.
    pub(crate) fn relieve(&self, trouble: usize) {
        self.record().troubles[trouble].until = Some(notes::now());
    }

    /// Whether anything happened to anybody.
    pub(crate) fn any_since(&self, since: Time) -> bool {
        self.events_since(since) > 0
    }

    /// How much happened, to whomever.
    pub(crate) fn events_since(&self, since: Time) -> usize {
        let record = self.record();
        let killed = record.killed.values().filter(|at| **at >= since).count();
        let troubles = record.troubles.iter().filter(|it| it.end() >= since);
        killed + troubles.count()
    }

    /// Whether this agent was out of reach at any time between these.
    pub(crate) fn was_in_trouble(&self, agent: AgentNumber, since: Time, until: Time) -> bool {
        let record = self.record();
        let mut silences = record.silences(agent).into_iter();
        silences.any(|(from, end)| from <= until && end + RECOVERY >= since)
    }

    /// Whether this agent was lost: killed, or out of reach for longer than its lease.
    pub(crate) fn is_lost_since(&self, agent: AgentNumber, since: Time) -> bool {
        self.record().is_lost_since(agent, since)
    }

    /// Whether the client may not know that an item began there at this time: the agent was killed
    /// in that moment, or was out of reach.
    pub(crate) fn may_be_unknown(&self, agent: AgentNumber, at: Time) -> bool {
        let record = self.record();
        let (since, until) = (at.saturating_sub(RECOVERY), at + ON_ITS_WAY);
        let killed = record.killed.get(&agent);
        let mut silences = record.silences(agent).into_iter();
        killed.is_some_and(|killed| (at..=until).contains(killed))
            || silences.any(|(from, end)| from <= until && end >= since)
    }

    /// Whether this agent's process was stopped at this time, or shortly before: its workers were
    /// not.
    pub(crate) fn was_stopped(&self, agent: AgentNumber, at: Time) -> bool {
        let record = self.record();
        let mut stops = record.troubles.iter().filter(|it| it.what == STOPPED);
        stops.any(|it| it.concerns(agent) && it.from <= at && it.end() + RECOVERY >= at)
    }

    /// What was done to this agent.
    pub(crate) fn describe(&self, agent: AgentNumber) -> String {
        let record = self.record();
        let mut done = Vec::new();
        if let Some(at) = record.killed.get(&agent) {
            done.push(format!("killed at {at}"));
        }
        for trouble in record.troubles.iter().filter(|it| it.concerns(agent)) {
            let Trouble {
                what, from, until, ..
            } = trouble;
            done.push(format!("{what} from {from} to {until:?}"));
        }
        format!("m{agent}: {}", done.join(", "))
    }
}

/// The number of the agent of this name.
pub(crate) fn number(name: &str) -> Option<AgentNumber> {
    name.strip_prefix('m')?.parse().ok()
}

/// The name of the agent of this number.
pub(crate) fn name(number: AgentNumber) -> String {
    format!("m{number}")
}
