//! The conformance suite, run for [`ClusterPool`]: each pool has a server of its own, so that
//! agents of one test run nothing of another's, and two agents, which are this very program.
//!
//! What such a pool does not promise, beyond what the constants of its [`Subject`] say:
//!
//! - A descriptor is of its machine: an item that has one in it fails, and so does a result.
//! - [`Pool::run_on_each`] is an error, and [`Call::on_worker`](procpool::Call::on_worker) means
//!   nothing: the queue gives work to whoever is free.
//! - Its size is that of its agents: it cannot be resized, and follows them.
//! - A task that emits values runs ahead of their reader by three buffers: its worker's, that of
//!   what is on its way, and the reader's.
//! - Calls begin in about the order in which they were made: what has waited at an agent goes back
//!   to the queue.
//! - An attempt takes a way over the network, some milliseconds.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod elsewhere;

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
    Suite::new()
        .pool::<Cluster>()
        .sections::<Cluster>([("elsewhere", elsewhere::tests())])
        .programs(elsewhere::programs())
        .run()
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
