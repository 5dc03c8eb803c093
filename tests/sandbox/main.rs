//! The conformance suite's sections for all pools, in a sandbox: what works there, and what does
//! not get out.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod confined;

use std::process::ExitCode;

use procpool::{ForkPool, Pool, Sandbox, SerialPool, SpawnPool};
use procpool_conformance::{Subject, Suite};

fn main() -> ExitCode {
    Suite::new()
        .set_up(start_fork_server)
        .set_up(run_a_task)
        .pool::<Fork>()
        .sections::<Fork>([("confined", confined::tests::<Fork>())])
        .pool::<Spawn>()
        .sections::<Spawn>([("confined", confined::tests::<Spawn>())])
        .run()
}

fn start_fork_server() {
    procpool::ForkServer::start()
        .expect("this program has one thread yet")
        .set_global()
        .expect("it is the first");
}

/// In a program that has run a task itself, panics of what tests give to pools are recorded and not
/// printed, as in the suite that has a `SerialPool` as well.
fn run_a_task() {
    assert_eq!(SerialPool::new().apply(|x: u64| x, 1), Ok(1));
}

/// Tests wait for each other by files.
fn sandbox() -> Sandbox {
    Sandbox::strict().allow_write(std::env::temp_dir())
}

/// Those whose workers are confined.
trait Confined: Subject {
    /// Like this.
    fn within(sandbox: Sandbox) -> Result<Self::Pool, procpool::BuildError>;
}

macro_rules! confined {
    ($subject:ident = $name:literal: $pool:ty) => {
        struct $subject;

        impl Subject for $subject {
            type Pool = $pool;
            const NAME: &str = $name;

            fn pool(workers: usize) -> $pool {
                let builder = <$pool>::builder().processes(workers);
                builder.sandbox(sandbox()).build().expect("a pool")
            }

            fn default_pool() -> $pool {
                <$pool>::builder()
                    .sandbox(sandbox())
                    .build()
                    .expect("a pool")
            }
        }

        impl Confined for $subject {
            fn within(sandbox: Sandbox) -> Result<$pool, procpool::BuildError> {
                <$pool>::builder().processes(2).sandbox(sandbox).build()
            }
        }
    };
}

confined!(Fork = "fork": ForkPool);
confined!(Spawn = "spawn": SpawnPool);
