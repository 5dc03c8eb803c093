//! The conformance suite in a sandbox: what works there, and what does not get out.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod builder;
mod confined;
mod doors;
mod left_out;

use std::process::ExitCode;

use procpool::backend::Backend;
use procpool::{
    BuildError, ForkPool, Pool, PoolBuilder, Sandbox, SerialPool, SpawnPool, WorkerPool,
};
use procpool_conformance::{Builder, Processes, Subject, Suite};

use crate::builder::ConfinedBuilder;
use crate::left_out::LEFT_OUT;

fn main() -> ExitCode {
    Suite::new()
        .set_up(start_fork_server)
        .set_up(run_a_task)
        .processes::<Fork>()
        .except::<Fork>(LEFT_OUT)
        .sections::<Fork>([
            ("confined", confined::tests::<Fork>()),
            ("doors", doors::tests::<Fork>()),
            ("doors", doors::fork_tests()),
        ])
        .programs(doors::programs::<Fork>())
        .programs(doors::fork_programs())
        .processes::<Spawn>()
        .except::<Spawn>(LEFT_OUT)
        .sections::<Spawn>([
            ("confined", confined::tests::<Spawn>()),
            ("doors", doors::tests::<Spawn>()),
        ])
        .programs(doors::programs::<Spawn>())
        .run()
}

fn start_fork_server() {
    doors::open_a_file();
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

/// Tests wait for each other by files, look at themselves by `/proc`, and ask for limits and for
/// what a socket is. (What `confined` is about may do nothing of that.)
fn sandbox() -> Sandbox {
    Sandbox::strict()
        .allow_write(std::env::temp_dir())
        .allow_read("/proc")
        .allow_syscalls(["getpriority", "getsockname", "getsockopt", "prlimit64"])
}

/// Those whose workers are confined.
trait Confined: Subject<Pool = WorkerPool<Self::Backend>> {
    type Backend: Backend;

    /// Without a sandbox yet.
    fn plain() -> PoolBuilder<Self::Backend>;

    /// Of two workers, like this.
    fn within(sandbox: Sandbox) -> Result<Self::Pool, BuildError> {
        Self::plain().processes(2).sandbox(sandbox).build()
    }
}

macro_rules! confined {
    ($subject:ident = $name:literal: $pool:ty, beside $other:ty { $($constant:item)* }) => {
        struct $subject;

        impl Subject for $subject {
            type Pool = $pool;
            const NAME: &str = $name;

            fn pool(workers: usize) -> $pool {
                Self::builder().processes(workers).build()
            }

            fn default_pool() -> $pool {
                Self::builder().build()
            }
        }

        impl Processes for $subject {
            type Builder = ConfinedBuilder<<$pool as Backed>::Backend>;
            type Other = $other;
            $($constant)*

            fn builder() -> Self::Builder {
                ConfinedBuilder::new(<$pool>::builder(), sandbox())
            }
        }

        impl Confined for $subject {
            type Backend = <$pool as Backed>::Backend;

            fn plain() -> PoolBuilder<Self::Backend> {
                <$pool>::builder()
            }
        }
    };
}

/// What a type of pool has its workers from.
trait Backed {
    type Backend: Backend;
}

impl<B: Backend> Backed for WorkerPool<B> {
    type Backend = B;
}

confined!(Fork = "fork": ForkPool, beside Spawn {
    const IS_COPY: bool = true;
    const STARTERS: &[&str] = &["procpool-server", "procpool-spare"];
});
confined!(Spawn = "spawn": SpawnPool, beside Fork {});
