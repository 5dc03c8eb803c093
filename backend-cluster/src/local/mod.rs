//! A whole cluster on this machine: its server and its agents, for one pool.

mod agent_process;
mod server;
mod server_log;
mod server_program;

use std::sync::Arc;

use procpool_core::{BuildError, BuildErrorKind, LaunchError};

use self::agent_process::AgentProcess;
use self::server::{Options, Server};
use crate::client::Shared;

/// What was started for a pool. The agents go first, and all go when this is dropped.
pub(crate) struct Local {
    agents: Vec<AgentProcess>,
    how_many: usize,
    server: Server,
}

impl Local {
    /// Starts the server, for this many agents.
    ///
    /// # Errors
    /// When there is none to be found, or it does not come up.
    pub(crate) fn start(agents: usize) -> Result<Self, BuildError> {
        if agents == 0 {
            let text = "local(0): there is no work done without an agent";
            return Err(BuildError::new(BuildErrorKind::InvalidConfig, text));
        }
        let program = Server::find().map_err(launch)?;
        let server = Server::start(&program, Options::default()).map_err(launch)?;
        Ok(Self {
            agents: Vec::new(),
            how_many: agents,
            server,
        })
    }

    /// The server's address, and what it asks for.
    pub(crate) fn server(&self) -> (String, String) {
        (self.server.url(), self.server.token().to_owned())
    }

    /// Starts the agents. The processors are shared out among them.
    pub(crate) fn start_agents(mut self, shared: &Arc<Shared>) -> Result<Self, BuildError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processes = (processors / self.how_many).max(1);
        for number in 1..=self.how_many {
            let agent = AgentProcess::start(&self.server, number, processes, shared);
            self.agents.push(agent.map_err(launch)?);
        }
        Ok(self)
    }

    /// The process identifiers of the agents.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.agents.iter().map(AgentProcess::pid).collect()
    }
}

fn launch(error: LaunchError) -> BuildError {
    BuildError::new(BuildErrorKind::Launch, error.to_string())
}
