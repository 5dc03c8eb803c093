//! Workers, launched for real. Every test is a scenario that runs in a process of its own, with a
//! temporary folder of its own that is empty again at the end; its workers run this program too.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod dying;
mod failing;
mod harness;
mod reaching;
mod rubbish;

use libtest_mimic::{Arguments, Trial};
use procpool_testing::again::asked_for;
use procpool_testing::watchdog;

use crate::harness::{Scenario, is_worker};

fn main() {
    let scenario = asked_for().and_then(|name| scenarios().find(|scenario| scenario.name == name));
    if let Some(scenario) = &scenario
        && is_worker()
    {
        (scenario.worker)();
    }
    if scenario.as_ref().is_none_or(|scenario| scenario.calls_init) {
        procpool_spawn::init();
    }
    if let Some(scenario) = scenario {
        return (scenario.parent)();
    }
    watchdog::start();
    let trials = scenarios()
        .map(|scenario| {
            Trial::test(scenario.name, move || {
                let _watched = watchdog::watch(scenario.name.to_owned());
                // Longer than what says more of what is missing.
                watchdog::allow(3);
                scenario.run();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn scenarios() -> impl Iterator<Item = Scenario> {
    reaching::scenarios()
        .into_iter()
        .chain(failing::scenarios())
        .chain(dying::scenarios())
        .chain(rubbish::scenarios())
}
