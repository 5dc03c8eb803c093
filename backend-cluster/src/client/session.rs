//! What a client has of an agent.

use std::collections::HashMap;
use std::time::Duration;

use procpool_core::{BroadcastContent, ContentId};

use super::outbox::Outbox;
use crate::agent_info::AgentInfo;
use crate::link::{Limits, Link};
use crate::message::{AgentCard, AgentId};

/// A session with an agent.
pub(crate) struct Session {
    pub(crate) agent: AgentId,
    pub(crate) number: u32,
    pub(crate) link: Link,
    /// `None`: it has not said hello.
    pub(crate) card: Option<AgentCard>,
    /// When it was asked last.
    pub(crate) asked: Duration,
    /// Values that came before the outcomes that mean them.
    pub(crate) contents: HashMap<ContentId, BroadcastContent>,
    pub(crate) is_leaving: bool,
    /// When it has said its last word.
    pub(crate) left_at: Option<Duration>,
    /// What is large.
    pub(crate) outbox: Outbox,
}

impl Session {
    pub(crate) fn new(agent: AgentId, number: u32, limits: Limits) -> Self {
        Self {
            agent,
            number,
            link: Link::new(number, limits),
            card: None,
            asked: Duration::ZERO,
            contents: HashMap::new(),
            is_leaving: false,
            left_at: None,
            outbox: Outbox::default(),
        }
    }

    /// What the pool's user is told of the agent, if it has said who it is.
    pub(crate) fn info(&self) -> Option<AgentInfo> {
        let card = self.card.as_ref()?;
        Some(AgentInfo {
            machine: card.machine.clone(),
            pid: card.pid,
            processes: card.slots as usize,
            up: card.up,
            is_leaving: self.is_leaving,
        })
    }

    pub(crate) fn machine(&self) -> &str {
        self.card.as_ref().map_or("?", |it| &it.machine)
    }
}
