//! The fork server, its launcher and its links, from the outside.
//!
//! Each scenario runs in a process of its own, which is this program executed again: a fork server
//! can be started only while there is one thread, some scenarios change limits, others end badly.

#![allow(
    clippy::disallowed_methods,
    reason = "tests do what programs do: they sleep, exit, and start programs"
)]

mod death;
mod launch;
mod limits;
mod orders;
mod processes;
mod rig;
mod rubbish;
mod standby;
mod start;

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use procpool_testing::watchdog;
use rustix::fs::{MemfdFlags, memfd_create};

/// Names the scenario that an executed-again process is to run.
const SCENARIO: &str = "PROCPOOL_FORK_SCENARIO";

/// A scenario panics if something is wrong.
type Scenario = (&'static str, fn());

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(SCENARIO) {
        let parts = death::PARTS
            .iter()
            .chain(standby::PARTS)
            .chain(start::PARTS);
        let (_, run) = scenarios()
            .chain(parts)
            .find(|(other, _)| *other == name)
            .expect("a scenario of that name");
        run();
        return ExitCode::SUCCESS;
    }
    watchdog::start();
    let trials = scenarios()
        .map(|(name, _)| {
            Trial::test(*name, || {
                let _watched = watchdog::watch((*name).to_owned());
                // Longer than what says more of what is missing.
                watchdog::allow(3);
                run_alone(name)
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [
        launch::SCENARIOS,
        death::SCENARIOS,
        limits::SCENARIOS,
        standby::SCENARIOS,
        rubbish::SCENARIOS,
        start::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// This program, to be executed again for a scenario or a part of one.
fn again(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.env(SCENARIO, scenario);
    command
}

fn run_alone(scenario: &str) -> Result<(), Failed> {
    // Not a pipe: one that a process left behind holds open has no end.
    let mut output = File::from(memfd_create("output", MemfdFlags::CLOEXEC)?);
    let status = again(scenario)
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .status()?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut said)?;
    Err(format!("{status}\n{}", String::from_utf8_lossy(&said)).into())
}
