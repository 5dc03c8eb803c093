//! What a pool promises, told as tests: one suite, generic over [`Pool`](procpool::Pool), run for
//! `SerialPool` and a pool of threads from outside of the crate where a test makes sense without
//! processes, for `ForkPool` and for `SpawnPool`.
//!
//! A test is a function that panics when the promise is broken. It waits as long as it takes: the
//! [`watchdog`] is what ends a test that hangs, and no test asserts how fast anything is. Tests
//! about whole processes run this program again as another [`program`].
#![cfg_attr(
    not(any(feature = "fork", feature = "spawn")),
    allow(
        dead_code,
        unused_imports,
        unused_mut,
        reason = "without a backend most tests have nothing to run on"
    )
)]

#[macro_use]
mod trial;

mod balance;
mod broadcast;
mod bulk;
mod callback;
mod cancel;
mod care;
mod deadline;
mod death;
mod events;
mod failure;
mod fate;
mod forged;
mod futures;
mod gate;
mod hooks;
mod hostile;
mod lazy;
mod life;
mod limits;
mod lingering;
mod live;
mod observe;
mod offering;
mod output;
mod peer;
mod program;
mod progress;
mod receipts;
mod recycling;
mod refused;
mod remains;
mod results;
mod rogue;
mod seeds;
mod settings;
mod spans;
mod stacks;
#[cfg(feature = "fork")]
mod standby;
mod start;
mod storm;
mod subject;
mod threads;
mod ties;
mod trace;
mod transfer;
mod watchdog;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::program::Program;
#[cfg(feature = "fork")]
use crate::subject::Fork;
#[cfg(feature = "spawn")]
use crate::subject::Spawn;
use crate::subject::{Processes, Serial, Subject};
use crate::threads::Threads;

fn main() -> ExitCode {
    procpool::init();
    if let Some(name) = program::asked_for() {
        return program::run(&name, programs());
    }
    // While there is one thread: the harness starts more.
    #[cfg(feature = "fork")]
    procpool::ForkServer::start()
        .expect("this program has one thread yet")
        .set_global()
        .expect("it is the first");
    let arguments = Arguments::from_args();
    if !arguments.list {
        watchdog::start();
    }
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let mut trials = every_pool::<Serial>();
    trials.extend(trial::trials(
        Serial::NAME,
        [("trace", trace::traced_pool::<Serial>())],
    ));
    trials.extend(every_pool::<Threads>());
    #[cfg(feature = "fork")]
    {
        trials.extend(pool_of_processes::<Fork>());
        trials.extend(trial::trials(Fork::NAME, [("standby", standby::tests())]));
    }
    #[cfg(feature = "spawn")]
    trials.extend(pool_of_processes::<Spawn>());
    trials
}

/// The tests that make sense for every pool.
fn every_pool<S: Subject>() -> Vec<Trial> {
    let sections = [
        ("seeds", seeds::every_pool::<S>()),
        ("results", results::every_pool::<S>()),
        ("lazy", lazy::every_pool::<S>()),
        ("live", live::every_pool::<S>()),
        ("futures", futures::every_pool::<S>()),
        ("failure", failure::every_pool::<S>()),
        ("receipts", receipts::every_pool::<S>()),
        ("progress", progress::every_pool::<S>()),
        ("observe", observe::every_pool::<S>()),
        ("callback", callback::every_pool::<S>()),
        ("life", life::every_pool::<S>()),
        ("broadcast", broadcast::every_pool::<S>()),
        ("offering", offering::every_pool::<S>()),
    ];
    trial::trials(S::NAME, sections)
}

/// These, and those that need processes.
#[cfg(any(feature = "fork", feature = "spawn"))]
fn pool_of_processes<S: Processes>() -> Vec<Trial> {
    let sections = [
        ("seeds", seeds::processes::<S>()),
        ("results", results::processes::<S>()),
        ("lazy", lazy::processes::<S>()),
        ("live", live::processes::<S>()),
        ("futures", futures::processes::<S>()),
        ("failure", failure::processes::<S>()),
        ("balance", balance::processes::<S>()),
        ("callback", callback::processes::<S>()),
        ("life", life::processes::<S>()),
        ("receipts", receipts::processes::<S>()),
        ("progress", progress::processes::<S>()),
        ("observe", observe::processes::<S>()),
        ("trace", trace::traced_pool::<S>()),
        ("trace", trace::processes::<S>()),
        ("recycling", recycling::processes::<S>()),
        ("start", start::processes::<S>()),
        ("storm", storm::processes::<S>()),
        ("death", death::processes::<S>()),
        ("transfer", transfer::processes::<S>()),
        ("deadline", deadline::processes::<S>()),
        ("lingering", lingering::processes::<S>()),
        ("cancel", cancel::processes::<S>()),
        ("bulk", bulk::processes::<S>()),
        ("remains", remains::processes::<S>()),
        ("ties", ties::processes::<S>()),
        ("refused", refused::processes::<S>()),
        ("hostile", hostile::processes::<S>()),
        ("broadcast", broadcast::processes::<S>()),
        ("offering", offering::processes::<S>()),
        ("forged", forged::processes::<S>()),
        ("limits", limits::processes::<S>()),
        ("hooks", hooks::processes::<S>()),
        ("settings", settings::processes::<S>()),
        ("care", care::processes::<S>()),
        ("output", output::processes::<S>()),
        ("events", events::processes::<S>()),
        ("events", spans::processes::<S>()),
    ];
    let mut trials = every_pool::<S>();
    trials.extend(trial::trials(S::NAME, sections));
    trials
}

/// What this program can be run again as.
fn programs() -> Vec<Program> {
    let mut programs = failure::programs::<Serial>();
    programs.extend(failure::programs::<Threads>());
    #[cfg(feature = "fork")]
    {
        programs.extend(programs_with::<Fork>());
        programs.extend(standby::programs());
    }
    #[cfg(feature = "spawn")]
    programs.extend(programs_with::<Spawn>());
    programs
}

#[cfg(any(feature = "fork", feature = "spawn"))]
fn programs_with<S: Processes>() -> Vec<Program> {
    [
        seeds::programs::<S>(),
        failure::programs::<S>(),
        life::programs::<S>(),
        live::programs::<S>(),
        start::programs::<S>(),
        storm::programs::<S>(),
        death::programs::<S>(),
        deadline::programs::<S>(),
        lingering::programs::<S>(),
        remains::programs::<S>(),
        ties::programs::<S>(),
        refused::programs::<S>(),
        broadcast::programs::<S>(),
        offering::programs::<S>(),
        limits::programs::<S>(),
        recycling::programs::<S>(),
        hostile::programs::<S>(),
        trace::programs::<S>(),
        output::programs::<S>(),
        events::programs::<S>(),
    ]
    .concat()
}
