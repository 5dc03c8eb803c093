//! The pools of an agent, with real workers and without any network.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they start programs, and exit"
)]

// It is no part of what the crate offers.
#[allow(dead_code, reason = "what the agent says of itself")]
#[path = "../../src/agent/host/mod.rs"]
mod host;
#[allow(dead_code, reason = "the host needs a part of it")]
#[path = "../../src/message.rs"]
mod message;

mod loopback;
mod scenarios;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use host::HostBackend;
use libtest_mimic::{Arguments, Trial};
use procpool_testing::watchdog;

/// What an agent has in its environment.
const ADDRESS: (&str, &str) = ("PROCPOOL_AGENT", "nats://nowhere");
const BACKEND: (&str, &str) = ("PROCPOOL_AGENT_BACKEND", "spawn");

type MakeBackend = fn() -> HostBackend;

fn main() {
    if env::var_os(ADDRESS.0).is_none() {
        let this = env::current_exe().expect("this program has a path");
        let mut again = Command::new(this);
        again.args(env::args_os().skip(1));
        let error = again
            .env(ADDRESS.0, ADDRESS.1)
            .env(BACKEND.0, BACKEND.1)
            .exec();
        panic!("it cannot be executed again: {error}");
    }
    procpool_spawn::init();
    #[cfg_attr(not(feature = "fork"), allow(unused_mut, reason = "there is one"))]
    let mut backends: Vec<(&str, MakeBackend)> = vec![("spawn", || HostBackend::Spawn)];
    #[cfg(feature = "fork")]
    {
        // While there is one thread.
        let server = procpool_fork::ForkServer::start().expect("a fork server");
        assert!(server.set_global().is_ok());
        backends.push(("fork", || {
            let server = procpool_fork::ForkServer::global().expect("it was started");
            HostBackend::Fork(server.clone())
        }));
    }
    watchdog::start();
    let trials = backends.iter().flat_map(|(backend, make)| {
        let all = scenarios::all().into_iter();
        all.map(move |(name, scenario)| {
            let name = format!("{backend}::{name}");
            let make = *make;
            Trial::test(name.clone(), move || {
                let _watched = watchdog::watch(name);
                scenario(make);
                Ok(())
            })
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
