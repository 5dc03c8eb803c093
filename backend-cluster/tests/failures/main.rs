//! Every way in which a pool of many machines can fail, with real processes and a real server.
//!
//! This program is the client, and its agents and workers too. So each failure is that of a
//! process, or of a network: something is killed, stopped, cut off, or not there.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they start programs, sleep, and exit"
)]

mod cluster;
mod program;
mod tasks;

mod builds;
mod certificates;
mod configuration;
mod credentials;
mod deaths;
mod direct;
mod machines;
mod membership;
mod observing;
mod payloads;
mod permissions;
mod restarts;
mod stops;

use libtest_mimic::{Arguments, Trial};
use procpool_testing::{again, watchdog};

/// What a test is given: its name.
type Scenario = fn(&str);

fn main() {
    procpool_spawn::init();
    procpool_cluster::init();
    if let Some(name) = again::asked_for() {
        return program::run(&name);
    }
    watchdog::start();
    let all = [
        deaths::all(),
        direct::all(),
        restarts::all(),
        membership::all(),
        machines::all(),
        stops::all(),
        payloads::all(),
        builds::all(),
        permissions::all(),
        certificates::all(),
        credentials::all(),
        configuration::all(),
        observing::all(),
    ];
    let trials = all.into_iter().flatten().map(|(name, scenario)| {
        Trial::test(name, move || {
            let _watched = watchdog::watch(name.to_owned());
            // Leases last seconds, and so does it to connect again.
            watchdog::allow(4);
            scenario(name);
            Ok(())
        })
    });
    let mut arguments = Arguments::from_args();
    // They wait, for the most part: for leases that end and connections that come back.
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
