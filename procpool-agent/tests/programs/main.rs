//! Programs that agents fetch from a real server. This program is the client, and what is published
//! is this program, too.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they start programs, and exit"
)]

mod agent;
mod scenarios;

use libtest_mimic::{Arguments, Trial};
use procpool_testing::watchdog;

fn main() {
    // A program that can be no agent, wherever it comes from.
    if std::env::var_os("TEST_FAILS").is_some() {
        std::process::exit(3);
    }
    procpool::init();
    watchdog::start();
    let trials = scenarios::all().into_iter().map(|(name, scenario)| {
        Trial::test(name, move || {
            let _watched = watchdog::watch(name.to_owned());
            // Programs are large, and leases last seconds.
            watchdog::allow(4);
            scenario(name);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}
