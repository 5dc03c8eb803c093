//! What a pool promises, as tests: one suite, generic over [`Pool`](procpool::Pool), run for
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

mod backends;
mod balance;
mod broadcast;
mod bulk;
mod callback;
mod cancel;
mod daemons;
mod deadline;
mod death;
mod death_mid_transfer;
mod events;
mod failure;
mod failure_modes;
mod file_barrier;
mod forged;
mod futures;
mod hooks;
mod hostile;
mod hostile_support;
mod imap;
mod leaks;
mod lifecycle;
mod limits;
mod lingering;
mod live;
mod metrics;
mod observe;
mod offering;
mod output;
mod procfs;
mod program;
mod progress;
mod readme_programs;
mod recycling;
mod refused;
mod restart_storm;
mod results;
mod settings;
mod shutdown;
mod spans;
mod stacks;
#[cfg(feature = "fork")]
mod standby;
mod start;
mod threads;
mod ties;
mod trace;
mod watchdog;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

#[cfg(feature = "fork")]
use crate::backends::Fork;
#[cfg(feature = "spawn")]
use crate::backends::Spawn;
use crate::backends::{Any, Processes, Serial, Subject};
use crate::program::Program;
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
    trials.extend(some_of_any_pool());
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
        ("seeds", readme_programs::every_pool::<S>()),
        ("results", results::every_pool::<S>()),
        ("lazy", imap::every_pool::<S>()),
        ("live", live::every_pool::<S>()),
        ("futures", futures::every_pool::<S>()),
        ("failure", failure::every_pool::<S>()),
        ("receipts", metrics::every_pool::<S>()),
        ("progress", progress::every_pool::<S>()),
        ("observe", observe::every_pool::<S>()),
        ("callback", callback::every_pool::<S>()),
        ("life", shutdown::every_pool::<S>()),
        ("broadcast", broadcast::every_pool::<S>()),
        ("offering", offering::every_pool::<S>()),
    ];
    trial::trials(S::NAME, sections)
}

/// A pool behind `AnyPool` is the pool itself: a few sections show that calls reach it, and its
/// end.
fn some_of_any_pool() -> Vec<Trial> {
    let sections = [
        ("results", results::every_pool::<Any>()),
        ("futures", futures::every_pool::<Any>()),
        ("life", shutdown::every_pool::<Any>()),
    ];
    trial::trials(Any::NAME, sections)
}

/// These, and those that need processes.
#[cfg(any(feature = "fork", feature = "spawn"))]
fn pool_of_processes<S: Processes>() -> Vec<Trial> {
    let sections = [
        ("seeds", readme_programs::processes::<S>()),
        ("results", results::processes::<S>()),
        ("lazy", imap::processes::<S>()),
        ("live", live::processes::<S>()),
        ("futures", futures::processes::<S>()),
        ("failure", failure::processes::<S>()),
        ("balance", balance::processes::<S>()),
        ("callback", callback::processes::<S>()),
        ("life", shutdown::processes::<S>()),
        ("receipts", metrics::processes::<S>()),
        ("progress", progress::processes::<S>()),
        ("observe", observe::processes::<S>()),
        ("trace", trace::traced_pool::<S>()),
        ("trace", trace::processes::<S>()),
        ("recycling", recycling::processes::<S>()),
        ("start", start::processes::<S>()),
        ("storm", restart_storm::processes::<S>()),
        ("death", death::processes::<S>()),
        ("transfer", death_mid_transfer::processes::<S>()),
        ("deadline", deadline::processes::<S>()),
        ("lingering", lingering::processes::<S>()),
        ("cancel", cancel::processes::<S>()),
        ("bulk", bulk::processes::<S>()),
        ("remains", leaks::processes::<S>()),
        ("ties", ties::processes::<S>()),
        ("daemons", daemons::processes::<S>()),
        ("refused", refused::processes::<S>()),
        ("hostile", hostile::processes::<S>()),
        ("broadcast", broadcast::processes::<S>()),
        ("offering", offering::processes::<S>()),
        ("forged", forged::processes::<S>()),
        ("limits", limits::processes::<S>()),
        ("hooks", hooks::processes::<S>()),
        ("settings", settings::processes::<S>()),
        ("care", lifecycle::processes::<S>()),
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
        readme_programs::programs::<S>(),
        failure::programs::<S>(),
        shutdown::programs::<S>(),
        live::programs::<S>(),
        start::programs::<S>(),
        restart_storm::programs::<S>(),
        death::programs::<S>(),
        deadline::programs::<S>(),
        lingering::programs::<S>(),
        leaks::programs::<S>(),
        ties::programs::<S>(),
        daemons::programs::<S>(),
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
