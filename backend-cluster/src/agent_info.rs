//! An agent, for users.

use std::fmt;
use std::time::Duration;

/// A process on some machine that runs tasks: see `ClusterPool::agents`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentInfo {
    /// The machine's name: what errors and workers are said to be on.
    pub machine: String,
    /// The agent's process identifier there.
    pub pid: u32,
    /// How many workers it has.
    pub processes: usize,
    /// How long it has been up.
    pub up: Duration,
    /// It takes no more work, and goes when it has done what it has.
    pub is_leaving: bool,
}

impl fmt::Display for AgentInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            machine,
            pid,
            processes,
            ..
        } = self;
        write!(f, "{machine} (pid {pid}, {processes} processes)")?;
        if self.is_leaving {
            write!(f, ", leaving")?;
        }
        Ok(())
    }
}
