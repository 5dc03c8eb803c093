//! A server with agents.

use std::time::Duration;

use procpool_cluster::{ClusterPool, ClusterPoolBuilder};
use procpool_testing::nats::{self, Agent, Config, Server};

/// What no test waits for: the watchdog comes first.
pub(crate) const LONG: Duration = Duration::from_secs(1000);

/// A server, and agents called `m0`, `m1`, ...; of two workers each.
pub(crate) struct Cluster {
    pub(crate) agents: Vec<Agent>,
    pub(crate) server: Server,
}

/// How many workers each agent has.
pub(crate) const WORKERS: usize = 2;

impl Cluster {
    /// Starts it. None: this test is left out.
    pub(crate) fn some_or_skip(test: &str, agents: usize) -> Option<Self> {
        Self::with_config(test, Config::new(), agents)
    }

    /// The same with such a server.
    pub(crate) fn with_config(test: &str, config: Config, agents: usize) -> Option<Self> {
        let server = nats::server_or_skip(test, config)?;
        let mut cluster = Self {
            agents: Vec::new(),
            server,
        };
        for _ in 0..agents {
            cluster.add_agent();
        }
        Some(cluster)
    }

    pub(crate) fn add_agent(&mut self) {
        let name = format!("m{}", self.agents.len());
        let agent = Agent::start(&self.server.url(), &name, WORKERS);
        self.agents.push(agent);
    }

    /// A pool's options. They leave time for a machine with much to do.
    pub(crate) fn builder(&self) -> ClusterPoolBuilder {
        builder(&self.server.url())
    }

    /// A pool that knows all agents.
    pub(crate) fn pool(&self) -> ClusterPool {
        self.built(self.builder())
    }

    /// The same of these options.
    pub(crate) fn built(&self, builder: ClusterPoolBuilder) -> ClusterPool {
        let pool = builder.build().expect("the server is there");
        self.wait_for_agents(&pool);
        pool
    }

    /// Waits until the pool knows all agents.
    pub(crate) fn wait_for_agents(&self, pool: &ClusterPool) {
        let processes = self.agents.len() * WORKERS;
        assert!(pool.wait_for_processes(processes, LONG));
    }
}

/// The options of a pool at this server.
pub(crate) fn builder(url: &str) -> ClusterPoolBuilder {
    ClusterPool::builder(url)
        .agents_timeout(LONG)
        .server_timeout(LONG)
}
