//! The sessions with agents: who is there, who says nothing, and who was given up.

use std::collections::HashMap;
use std::time::Duration;

use super::session::Session;
use crate::agent_info::AgentInfo;
use crate::link::{Lane, Limits};
use crate::message::{AgentId, ToAgent, to_bytes};

/// How often an agent is asked that has work.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long after it was asked in vain an agent is given up: longer than its lease.
const GIVE_UP: Duration = Duration::from_secs(6);
/// How long the session of an agent that has left is kept, so that this is acknowledged.
const HEARS_LEFT: Duration = Duration::from_secs(1);

/// What a session is called here. None is used twice.
pub(super) type Key = u64;

/// See the module.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<Key, Session>,
    last_key: Key,
    by_agent: HashMap<AgentId, Key>,
    /// The last session of each agent that was given up.
    refused: HashMap<AgentId, u32>,
    /// The machines of sessions that were given up, and with which something may be lost yet.
    lost_machines: HashMap<Key, String>,
    last_tick: Duration,
}

/// Which session a frame belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Belongs {
    To(Key),
    /// It was given up, or the agent has begun another one since.
    ToThePast,
    /// The agent has begun one, and says nothing more in the old one.
    ToTheNext {
        old: Option<Key>,
    },
}

impl Sessions {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            last_tick: now,
            ..Self::default()
        }
    }

    /// Where a frame of this agent's belongs, in its session with this number.
    pub(super) fn find(&self, agent: AgentId, number: u32) -> Belongs {
        let key = self.by_agent.get(&agent).copied();
        let current = key.map(|key| self.all[&key].number);
        let is_refused = (self.refused.get(&agent)).is_some_and(|last| number <= *last);
        match (key, current) {
            _ if is_refused => Belongs::ToThePast,
            (Some(key), Some(current)) if number == current => Belongs::To(key),
            (_, Some(current)) if number < current => Belongs::ToThePast,
            (old, _) => Belongs::ToTheNext { old },
        }
    }

    pub(super) fn open(&mut self, agent: AgentId, number: u32, limits: Limits) -> Key {
        self.last_key += 1;
        let key = self.last_key;
        self.all.insert(key, Session::new(agent, number, limits));
        self.by_agent.insert(agent, key);
        key
    }

    /// The session is over. Says whether it was not before.
    pub(super) fn give_up(&mut self, key: Key) -> Option<Session> {
        let session = self.all.remove(&key)?;
        self.by_agent.remove(&session.agent);
        self.refused.insert(session.agent, session.number);
        let machine = session.machine().to_owned();
        self.lost_machines.insert(key, machine);
        Some(session)
    }

    /// The machine of a session that was given up.
    pub(super) fn lost_machine(&self, key: Key) -> Option<&str> {
        self.lost_machines.get(&key).map(String::as_str)
    }

    /// Of sessions that were given up, these alone are remembered.
    pub(super) fn retain_lost(&mut self, is_kept: impl Fn(Key) -> bool) {
        self.lost_machines.retain(|key, _| is_kept(*key));
    }

    pub(super) fn has_agent(&self, agent: AgentId) -> bool {
        self.by_agent.contains_key(&agent)
    }

    /// Those with the agent in this process.
    pub(super) fn of_process(&self, pid: u32) -> Vec<Key> {
        let is_of = |it: &Session| it.card.as_ref().is_some_and(|card| card.pid == pid);
        let sessions = self.all.iter().filter(|(_, it)| is_of(it));
        sessions.map(|(key, _)| *key).collect()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Session> {
        self.all.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Session> {
        self.all.get_mut(&key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Key, &Session)> {
        self.all.iter().map(|(key, it)| (*key, it))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = (Key, &mut Session)> {
        self.all.iter_mut().map(|(key, it)| (*key, it))
    }

    /// Says this to an agent, if its session is not over.
    pub(super) fn say(&mut self, key: Key, lane: Lane, message: &ToAgent) {
        if let Some(session) = self.all.get_mut(&key) {
            session.link.send(lane, to_bytes(message));
        }
    }

    /// The same to all agents.
    pub(super) fn say_to_all(&mut self, lane: Lane, message: &ToAgent) {
        for session in self.all.values_mut() {
            session.link.send(lane, to_bytes(message));
        }
    }

    /// Those that were asked now, or are about to be.
    pub(super) fn asked_at(&self, now: Duration) -> Vec<Key> {
        let asked = self.all.iter().filter(|(_, it)| it.asked == now);
        asked.map(|(key, _)| *key).collect()
    }

    /// The agents that have said who they are, of these sessions.
    pub(super) fn infos(&self, is_there: impl Fn(Key) -> bool) -> Vec<AgentInfo> {
        let there = self.all.iter().filter(|(key, _)| is_there(**key));
        there.filter_map(|(_, it)| it.info()).collect()
    }

    /// The client has another connection.
    pub(super) fn reconnected(&mut self) {
        for session in self.all.values_mut() {
            session.link.reconnected();
            // Nobody could answer meanwhile.
            session.link.forget_asking();
        }
    }

    /// When something is to be sent, or a session ends, though nothing has happened.
    pub(super) fn next_timer(&self) -> Option<Duration> {
        let links = self.all.values().filter_map(|it| it.link.next_timer());
        let left = self.all.values().filter_map(|it| it.left_at);
        links.chain(left.map(|at| at + HEARS_LEFT)).min()
    }

    /// Asks those that are watched. Says which are to be given up.
    pub(super) fn tick(
        &mut self,
        now: Duration,
        is_up: bool,
        watches: impl Fn(Key) -> bool,
    ) -> Vec<Key> {
        // This process was stopped, or had no processor: agents have not been asked meanwhile.
        let has_slept = now.saturating_sub(self.last_tick) > GIVE_UP / 6;
        self.last_tick = now;
        let mut lost = Vec::new();
        for (key, session) in &mut self.all {
            // What was said to it and is not acknowledged is a reason, too.
            let is_watched = watches(*key) || session.link.backlog() > 0;
            // Nobody has heard what was answered meanwhile, or nobody has asked again.
            if has_slept || !is_watched {
                session.link.forget_asking();
            }
            if is_watched && is_up && now >= session.asked + ASK_EVERY {
                session.asked = now;
                session.link.ask();
            }
            let silent = session.link.asked_since();
            let is_silent = silent.is_some_and(|since| now > since + GIVE_UP);
            let has_left = session.left_at.is_some_and(|at| now >= at + HEARS_LEFT);
            if has_left || is_watched && is_up && is_silent {
                lost.push(*key);
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const AGENT: AgentId = 7;

    fn open(sessions: &mut Sessions, number: u32) -> Key {
        sessions.open(AGENT, number, Limits::of_payload(1 << 20))
    }

    /// Ticks every 50 ms from then on, and says when something is to be given up, if that is soon.
    fn silence(sessions: &mut Sessions, from: Duration, is_watched: bool) -> Option<Duration> {
        for tick in 0..200 {
            let now = from + tick * ASK_EVERY;
            if !sessions.tick(now, true, |_| is_watched).is_empty() {
                return Some(now - from);
            }
            for (_, session) in sessions.all_mut() {
                while session.link.poll_frame(now).is_some() {}
            }
        }
        None
    }

    #[test]
    fn a_frame_belongs_to_the_session_with_its_number() {
        let mut sessions = Sessions::new(NOW);
        assert_eq!(sessions.find(AGENT, 2), Belongs::ToTheNext { old: None });
        let key = open(&mut sessions, 2);
        assert!(sessions.has_agent(AGENT));
        assert_eq!(sessions.find(AGENT, 1), Belongs::ToThePast);
        assert_eq!(sessions.find(AGENT, 2), Belongs::To(key));
        let old = Some(key);
        assert_eq!(sessions.find(AGENT, 3), Belongs::ToTheNext { old });
        assert!(sessions.give_up(key).is_some());
        assert!(sessions.give_up(key).is_none());
        assert_eq!(sessions.find(AGENT, 2), Belongs::ToThePast);
        assert_eq!(sessions.find(AGENT, 3), Belongs::ToTheNext { old: None });
        assert_ne!(open(&mut sessions, 3), key);
    }

    #[test]
    fn machines_are_remembered_as_long_as_they_matter() {
        let mut sessions = Sessions::new(NOW);
        let key = open(&mut sessions, 1);
        assert_eq!(sessions.lost_machine(key), None);
        sessions.give_up(key);
        assert_eq!(sessions.lost_machine(key), Some("?"));
        sessions.retain_lost(|it| it == key);
        assert_eq!(sessions.lost_machine(key), Some("?"));
        sessions.retain_lost(|_| false);
        assert_eq!(sessions.lost_machine(key), None);
    }

    #[test]
    fn who_is_watched_and_says_nothing_is_given_up() {
        let mut sessions = Sessions::new(NOW);
        open(&mut sessions, 1);
        assert_eq!(silence(&mut sessions, NOW, false), None);
        let from = NOW + 200 * ASK_EVERY;
        let after = silence(&mut sessions, from, true).expect("it is given up");
        assert!(
            after > GIVE_UP && after < GIVE_UP + 3 * ASK_EVERY,
            "{after:?}"
        );
    }

    #[test]
    fn a_client_that_was_stopped_or_cut_off_asks_again() {
        let mut sessions = Sessions::new(NOW);
        open(&mut sessions, 1);
        for tick in 0..119 {
            let now = NOW + tick * ASK_EVERY;
            assert!(sessions.tick(now, true, |_| true).is_empty());
            for (_, session) in sessions.all_mut() {
                while session.link.poll_frame(now).is_some() {}
            }
        }
        // Nothing has ticked for a while.
        let after = silence(&mut sessions, NOW + 2 * GIVE_UP, true);
        assert!(after.is_some_and(|it| it > GIVE_UP));
        sessions.reconnected();
        assert!(sessions.tick(NOW + 4 * GIVE_UP, true, |_| true).is_empty());
    }

    #[test]
    fn who_has_left_is_let_go_of() {
        let mut sessions = Sessions::new(NOW);
        let key = open(&mut sessions, 1);
        sessions.get_mut(key).unwrap().left_at = Some(NOW);
        assert_eq!(sessions.next_timer(), Some(NOW + HEARS_LEFT));
        assert!(sessions.tick(NOW, true, |_| false).is_empty());
        assert_eq!(sessions.tick(NOW + HEARS_LEFT, true, |_| false), [key]);
    }
}
