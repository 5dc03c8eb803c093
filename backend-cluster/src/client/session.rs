//! What a client has of an agent.

use std::collections::HashMap;
use std::time::Duration;

use procpool_core::{BroadcastContent, ContentId};

use super::outbox::Outbox;
use crate::link::Link;
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
    pub(crate) fn machine(&self) -> &str {
        self.card.as_ref().map_or("?", |it| &it.machine)
    }
}
