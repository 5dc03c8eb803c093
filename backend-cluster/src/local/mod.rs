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
use crate::init::check_ready;
use crate::nats::ServerOptions;

/// What was started for a pool. The agents go first, and all go when this is dropped.
pub(crate) struct Local {
    agents: Vec<AgentProcess>,
    /// How many workers each is to have.
    processes: Vec<usize>,
    /// `None`: the pool is at another one.
    server: Option<Server>,
}

impl Local {
    /// Starts the server, for this many agents.
    ///
    /// # Errors
    /// When there is none to be found, it does not come up, or agents would not become any.
    pub(crate) fn start(agents: usize) -> Result<Self, BuildError> {
        if agents == 0 {
            let text = "local(0): there is no work done without an agent";
            return Err(BuildError::new(BuildErrorKind::InvalidConfig, text));
        }
        check_ready()?;
        let program = Server::find().map_err(launch)?;
        let server = Server::start(&program, Options::default()).map_err(launch)?;
        // The processors are shared out among them.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            agents: Vec::new(),
            processes: vec![(processors / agents).max(1); agents],
            server: Some(server),
        })
    }

    /// For agents of so many workers each at a server that is there.
    ///
    /// # Errors
    /// When agents would not become any.
    pub(crate) fn elsewhere(processes: Vec<usize>) -> Result<Self, BuildError> {
        check_ready()?;
        Ok(Self {
            agents: Vec::new(),
            processes,
            server: None,
        })
    }

    /// The address of the server that was started, and what it asks for.
    pub(crate) fn server(&self) -> Option<(String, String)> {
        let server = self.server.as_ref()?;
        Some((server.url(), server.token().to_owned()))
    }

    /// Starts the agents, at this server.
    pub(crate) fn start_agents(
        mut self,
        server: &ServerOptions,
        shared: &Arc<Shared>,
    ) -> Result<Self, BuildError> {
        if let Some(server) = &mut self.server {
            server.watch(shared).map_err(launch)?;
        }
        for (number, processes) in (1..).zip(&self.processes) {
            let agent = AgentProcess::start(server, number, *processes, shared);
            self.agents.push(agent.map_err(launch)?);
        }
        Ok(self)
    }
}

fn launch(error: LaunchError) -> BuildError {
    BuildError::new(BuildErrorKind::Launch, error.to_string())
}
