//! Which tests there are, and the program that runs them.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::backends::{Processes, Subject};
use crate::program::{self, Program};
use crate::trial::{self, Test};
use crate::watchdog;
use crate::{
    balance, bells, broadcast, bulk, callback, cancel, context, daemons, deadline, death,
    death_mid_transfer, events, failure, forged, futures, hooks, hostile, imap, leaks, lifecycle,
    limits, lingering, live, metrics, observe, offering, output, progress, readme_programs,
    recycling, refused, restart_storm, results, settings, shutdown, spans, start, state, ties,
    trace, values,
};

/// The tests of some kinds of pools, as a program: what [`main!`](crate::main) makes for one kind.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use procpool::SerialPool;
/// use procpool_conformance::{Subject, Suite, subject};
///
/// subject!(Spawn = "spawn": procpool::SpawnPool);
///
/// struct Serial;
///
/// impl Subject for Serial {
///     type Pool = SerialPool;
///     const NAME: &str = "serial";
///     const HAS_WORKERS: bool = false;
///
///     fn pool(_workers: usize) -> SerialPool {
///         SerialPool::new()
///     }
///
///     fn default_pool() -> SerialPool {
///         SerialPool::new()
///     }
/// }
///
/// fn main() -> ExitCode {
///     Suite::new().pool::<Serial>().processes::<Spawn>().run()
/// }
/// ```
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
    programs: Vec<Program>,
    set_up: Vec<fn()>,
}

impl Suite {
    /// Without any test yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls this in the program that runs the tests, while it has one thread, and not in the
    /// programs that tests run.
    #[must_use]
    pub fn set_up(mut self, set_up: fn()) -> Self {
        self.set_up.push(set_up);
        self
    }

    /// Adds the tests that make sense for every kind of pool.
    #[must_use]
    pub fn pool<S: Subject>(self) -> Self {
        let suite = self.sections::<S>(every_pool::<S>());
        suite.programs(failure::programs::<S>())
    }

    /// Adds these, and those that need processes.
    #[must_use]
    pub fn processes<S: Processes>(self) -> Self {
        let suite = self.sections::<S>(every_pool::<S>());
        suite
            .sections::<S>(pool_of_processes::<S>())
            .programs(programs_with::<S>())
    }

    /// Adds a few sections for a pool that hands its calls to another one: they show that calls
    /// reach it, and its end.
    #[must_use]
    pub fn wrapper<S: Subject>(self) -> Self {
        self.sections::<S>([
            ("results", results::every_pool::<S>()),
            ("futures", futures::every_pool::<S>()),
            ("life", shutdown::every_pool::<S>()),
        ])
    }

    /// Adds tests of one's own, by their section.
    #[must_use]
    pub fn sections<S: Subject>(
        mut self,
        sections: impl IntoIterator<Item = (&'static str, Vec<Test>)>,
    ) -> Self {
        self.trials.extend(trial::trials(S::NAME, sections));
        self
    }

    /// Adds programs that tests of one's own run.
    #[must_use]
    pub fn programs(mut self, programs: Vec<Program>) -> Self {
        self.programs.extend(programs);
        self
    }

    /// Runs the tests that the arguments of this program ask for, as the harness of `#[test]`
    /// would: the body of `main`. In a worker, and in a program that a test runs, it is that.
    #[must_use]
    pub fn run(self) -> ExitCode {
        procpool::init();
        if let Some(name) = program::asked_for() {
            return program::run(&name, self.programs);
        }
        // While there is one thread: the harness starts more.
        for set_up in self.set_up {
            set_up();
        }
        let arguments = Arguments::from_args();
        if !arguments.list {
            watchdog::start();
        }
        libtest_mimic::run(&arguments, self.trials).exit_code()
    }
}

type Section = (&'static str, Vec<Test>);

/// The tests that make sense for every pool.
fn every_pool<S: Subject>() -> Vec<Section> {
    let mut sections = vec![
        ("seeds", readme_programs::every_pool::<S>()),
        ("results", results::every_pool::<S>()),
        ("values", values::every_pool::<S>()),
        ("state", state::every_pool::<S>()),
        ("context", context::every_pool::<S>()),
        ("lazy", imap::every_pool::<S>()),
        ("live", live::every_pool::<S>()),
        ("futures", futures::every_pool::<S>()),
        ("failure", failure::every_pool::<S>()),
        ("metrics", metrics::every_pool::<S>()),
        ("progress", progress::every_pool::<S>()),
        ("observe", observe::every_pool::<S>()),
        ("callback", callback::every_pool::<S>()),
        ("life", shutdown::every_pool::<S>()),
        ("broadcast", broadcast::every_pool::<S>()),
        ("offering", offering::every_pool::<S>()),
    ];
    if S::IS_TRACED {
        sections.push(("trace", trace::traced_pool::<S>()));
    }
    sections
}

/// Those that need processes.
fn pool_of_processes<S: Processes>() -> Vec<Section> {
    vec![
        ("seeds", readme_programs::processes::<S>()),
        ("results", results::processes::<S>()),
        ("values", values::processes::<S>()),
        ("state", state::processes::<S>()),
        ("context", context::processes::<S>()),
        ("lazy", imap::processes::<S>()),
        ("live", live::processes::<S>()),
        ("futures", futures::processes::<S>()),
        ("failure", failure::processes::<S>()),
        ("balance", balance::processes::<S>()),
        ("callback", callback::processes::<S>()),
        ("life", shutdown::processes::<S>()),
        ("metrics", metrics::processes::<S>()),
        ("progress", progress::processes::<S>()),
        ("observe", observe::processes::<S>()),
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
        ("bells", bells::processes::<S>()),
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
    ]
}

/// What the test program can be run again as.
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
        bells::programs::<S>(),
        hostile::programs::<S>(),
        trace::programs::<S>(),
        output::programs::<S>(),
        events::programs::<S>(),
    ]
    .concat()
}
