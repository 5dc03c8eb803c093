//! The conformance suite, run for the pools of this crate, and for three from outside of it: one of
//! threads, one of child processes at the ends of pipes, and one whose chunks run in another pool.
//! The tests themselves are the crate `procpool-conformance`; here are those about what only a fork
//! server has, and about what such pools need.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod careless;
#[cfg(feature = "spawn")]
mod hosted;
mod over_pipes;
mod pipes;
#[cfg(feature = "fork")]
mod standby;
mod threads;
#[cfg(feature = "fork")]
mod with_threads;

use std::process::ExitCode;

use procpool::{AnyPool, SerialPool};
use procpool_conformance::{Subject, Suite};

use crate::pipes::Pipes;
use crate::threads::Threads;

fn main() -> ExitCode {
    if let Some(code) = pipes::be_agent() {
        return code;
    }
    let suite = Suite::new()
        .pool::<Serial>()
        .pool::<Threads>()
        .sections::<Threads>([("careless", careless::tests())])
        .pool::<Pipes>()
        .sections::<Pipes>([("over_pipes", over_pipes::tests())])
        .wrapper::<Any>();
    #[cfg(feature = "fork")]
    let suite = suite
        .set_up(start_fork_server)
        .processes::<Fork>()
        .sections::<Fork>([
            ("with_threads", with_threads::tests()),
            ("standby", standby::tests()),
        ])
        .programs(careless::programs())
        .programs(with_threads::programs())
        .programs(standby::programs());
    #[cfg(feature = "spawn")]
    let suite = suite
        .processes::<Spawn>()
        .pool::<hosted::Hosted>()
        .sections::<hosted::Hosted>([("hosted", hosted::tests())]);
    suite.run()
}

/// For all pools of `Fork` in the test program itself; in other programs each pool starts one of
/// its own.
#[cfg(feature = "fork")]
fn start_fork_server() {
    procpool::ForkServer::start()
        .expect("this program has one thread yet")
        .set_global()
        .expect("it is the first");
}

#[cfg(all(feature = "fork", feature = "spawn"))]
type OtherThanFork = Spawn;
#[cfg(all(feature = "fork", not(feature = "spawn")))]
type OtherThanFork = Fork;
#[cfg(all(feature = "spawn", feature = "fork"))]
type OtherThanSpawn = Fork;
#[cfg(all(feature = "spawn", not(feature = "fork")))]
type OtherThanSpawn = Spawn;

#[cfg(feature = "fork")]
procpool_conformance::subject!(Fork = "fork": procpool::ForkPool, beside OtherThanFork {
    const IS_COPY: bool = true;
    const STARTERS: &[&str] = &["procpool-server", "procpool-spare"];
});

#[cfg(feature = "spawn")]
procpool_conformance::subject!(Spawn = "spawn": procpool::SpawnPool, beside OtherThanSpawn {});

struct Serial;

impl Subject for Serial {
    type Pool = SerialPool;
    const NAME: &str = "serial";
    const HAS_WORKERS: bool = false;

    fn pool(_workers: usize) -> SerialPool {
        SerialPool::new()
    }

    fn default_pool() -> SerialPool {
        SerialPool::new()
    }
}

/// [`AnyPool`], as a box of it, which is a pool as well.
struct Any;

#[cfg(feature = "fork")]
type Behind = Fork;
#[cfg(all(feature = "spawn", not(feature = "fork")))]
type Behind = Spawn;
#[cfg(not(any(feature = "fork", feature = "spawn")))]
type Behind = Serial;

impl Subject for Any {
    type Pool = Box<AnyPool>;
    const NAME: &str = "any";

    fn pool(workers: usize) -> Box<AnyPool> {
        Box::new(Behind::pool(workers).into())
    }

    fn default_pool() -> Box<AnyPool> {
        Box::new(Behind::default_pool().into())
    }
}
