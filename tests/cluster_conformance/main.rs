//! The conformance suite, run for [`ClusterPool`]: each pool has a server of its own, so that
//! agents of one test run nothing of another's, and two agents, which are this very program.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use procpool::executor::Executor;
use procpool::{ClusterPool, Pool};
use procpool_conformance::{Subject, Suite};
use procpool_testing::nats::{self, Config, Server};

fn main() -> ExitCode {
    procpool::init();
    if nats::program_or_skip("cluster_conformance").is_none() {
        return ExitCode::SUCCESS;
    }
    Suite::new().pool::<Cluster>().run()
}

/// A [`ClusterPool`] of two agents.
struct Cluster;

impl Subject for Cluster {
    type Pool = TestPool;
    const NAME: &str = "cluster";
    // One on each side, and one on the way.
    const STREAM_BUFFERS: usize = 3;
    const MANY_ATTEMPTS: u32 = 2_000;
    const PASSES_DESCRIPTORS: bool = false;
    const IS_TRACED: bool = false;

    fn pool(workers: usize) -> TestPool {
        TestPool::new(workers)
    }

    fn default_pool() -> TestPool {
        TestPool::new(2)
    }
}

/// A pool with its server, which goes last.
struct TestPool {
    pool: ClusterPool,
    _server: Server,
}

impl TestPool {
    fn new(workers: usize) -> Self {
        let server = server();
        let agents: &[usize] = match workers {
            1 => &[1],
            _ => &[workers.div_ceil(2), workers / 2],
        };
        let builder = ClusterPool::builder(&server.url()).local_agents(agents);
        let pool = builder.build().expect("a pool can be built");
        assert!(pool.wait_for_processes(workers, Duration::from_secs(60)));
        Self {
            pool,
            _server: server,
        }
    }
}

impl Pool for TestPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        self.pool.executor()
    }
}

fn server() -> Server {
    let program = nats::program().expect("there was one when the program began");
    Server::start(program, Config::new().memory_only())
}
