//! What subjects, stream and consumer are called.

use crate::message::{AgentId, ClientId};

/// The names for one build of a program.
#[derive(Debug, Clone)]
pub(crate) struct Subjects {
    build: String,
}

impl Subjects {
    /// Those of this program.
    pub(crate) fn of_this_build() -> Self {
        Self {
            build: procpool_core::build_id().to_string(),
        }
    }

    pub(crate) fn build(&self) -> &str {
        &self.build
    }

    /// The queue.
    pub(crate) fn stream(&self) -> String {
        format!("PP_W_{}", self.build)
    }

    /// Who takes from it.
    pub(crate) fn consumer() -> &'static str {
        "agents"
    }

    /// What the queue holds.
    pub(crate) fn all_work(&self) -> String {
        format!("pp.w.{}.>", self.build)
    }

    /// A client's deliveries.
    pub(crate) fn work(&self, client: ClientId) -> String {
        format!("pp.w.{}.{client:016x}", self.build)
    }

    /// Frames from this agent to this client.
    pub(crate) fn to_client(&self, client: ClientId, agent: AgentId) -> String {
        format!("pp.c.{}.{client:016x}.{agent:016x}", self.build)
    }

    /// All frames for this client.
    pub(crate) fn for_client(&self, client: ClientId) -> String {
        format!("pp.c.{}.{client:016x}.*", self.build)
    }

    /// Frames from this client to this agent.
    pub(crate) fn to_agent(&self, agent: AgentId, client: ClientId) -> String {
        format!("pp.a.{}.{agent:016x}.{client:016x}", self.build)
    }

    /// All frames for this agent, and its notes to itself.
    pub(crate) fn for_agent(&self, agent: AgentId) -> String {
        format!("pp.a.{}.{agent:016x}.*", self.build)
    }

    /// An agent's notes to itself.
    pub(crate) fn note(&self, agent: AgentId) -> String {
        format!("pp.a.{}.{agent:016x}.note", self.build)
    }

    pub(crate) fn hello(&self) -> String {
        format!("pp.hello.{}", self.build)
    }

    pub(crate) fn who(&self) -> String {
        format!("pp.who.{}", self.build)
    }

    /// Where agents of all builds say which one they are of.
    pub(crate) fn other() -> &'static str {
        "pp.other"
    }

    /// Where the queue is asked for deliveries.
    pub(crate) fn pull(&self) -> String {
        let consumer = Self::consumer();
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", self.stream())
    }
}

/// The number that the last part of a subject is.
pub(crate) fn last_number(subject: &str) -> Option<u64> {
    u64::from_str_radix(subject.rsplit('.').next()?, 16).ok()
}
