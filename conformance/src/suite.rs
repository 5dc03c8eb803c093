//! Which tests there are, and the program that runs them.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use procpool::Pool;

use crate::backends::{Processes, Subject};
use crate::program::{self, Program};
use crate::trial::{self, Test};
use crate::{
    backoff, balance, broadcast, bulk, call_deadline, callback, cancel, context, daemons, deadline,
    death, death_mid_transfer, descriptor_lifetimes, descriptor_limits, descriptors, emitter,
    events, forged_descriptors, forged_results, futures, hooks, hostile, imap, join_async, leaks,
    lifecycle, limits, live_inputs, max_queued, memory, metrics, observe, observer, output, panics,
    priority, progress, readme_programs, recycling, refused, restart_storm, results, retry,
    settings, shared_results, shutdown, spans, start, state, target, ties, trace, unkillable,
    values, wakeups,
};
use crate::{signals, watchdog};

/// The tests that a function of each of these modules lists: a section has its module's name.
macro_rules! sections {
    ($list:ident::<$subject:ident>: $($section:ident),+ $(,)?) => {
        vec![$((stringify!($section), $section::$list::<$subject>())),+]
    };
}

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
        suite.programs(panics::programs::<S>())
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
        self.sections::<S>(sections![every_pool::<S>: results, futures, shutdown])
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

    /// Leaves out tests of a kind of pool, by their section and name, each for the reason with
    /// which it stands in a list.
    ///
    /// # Panics
    /// When there is no such test: then the list is older than the suite.
    #[must_use]
    pub fn except<S: Subject>(mut self, lists: &[(&str, &[&str])]) -> Self {
        for name in lists.iter().flat_map(|(_reason, names)| *names) {
            let before = self.trials.len();
            let name = format!("{}::{name}", S::NAME);
            self.trials.retain(|trial| trial.name() != name);
            assert!(self.trials.len() < before, "there is no test {name:?}");
        }
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
    ///
    /// Signals do what they do by default then, whatever the program's starter has had it ignore or
    /// block.
    #[must_use]
    pub fn run(self) -> ExitCode {
        procpool::init();
        if let Some(name) = program::asked_for() {
            return program::run(&name, self.programs);
        }
        // While there is one thread: the harness starts more.
        signals::reset();
        for set_up in self.set_up {
            set_up();
        }
        // Once tasks have run in this process, panics that are caught are not printed.
        let own = procpool::SerialPool::new();
        own.apply(|(): ()| (), ()).expect("it does nothing");
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
    let mut sections = sections![every_pool::<S>:
        readme_programs,
        results,
        values,
        state,
        context,
        call_deadline,
        priority,
        max_queued,
        retry,
        backoff,
        imap,
        emitter,
        live_inputs,
        futures,
        panics,
        metrics,
        progress,
        observe,
        callback,
        shutdown,
        join_async,
        broadcast,
        shared_results,
        descriptors,
        descriptor_lifetimes,
    ];
    if S::IS_TRACED {
        sections.extend(sections![traced_pool::<S>: trace, observer]);
    }
    sections
}

/// Those that need processes.
fn pool_of_processes<S: Processes>() -> Vec<Section> {
    sections![processes::<S>:
        readme_programs,
        results,
        values,
        state,
        context,
        target,
        imap,
        emitter,
        live_inputs,
        futures,
        panics,
        balance,
        callback,
        shutdown,
        join_async,
        metrics,
        progress,
        observe,
        observer,
        trace,
        recycling,
        start,
        restart_storm,
        death,
        death_mid_transfer,
        deadline,
        call_deadline,
        priority,
        max_queued,
        retry,
        backoff,
        unkillable,
        cancel,
        bulk,
        leaks,
        ties,
        daemons,
        refused,
        wakeups,
        hostile,
        broadcast,
        shared_results,
        descriptors,
        descriptor_lifetimes,
        descriptor_limits,
        forged_descriptors,
        forged_results,
        limits,
        hooks,
        settings,
        memory,
        lifecycle,
        output,
        events,
        spans,
    ]
}

/// What the test program can be run again as.
fn programs_with<S: Processes>() -> Vec<Program> {
    [
        readme_programs::programs::<S>(),
        panics::programs::<S>(),
        shutdown::programs::<S>(),
        live_inputs::programs::<S>(),
        start::programs::<S>(),
        restart_storm::programs::<S>(),
        death::programs::<S>(),
        deadline::programs::<S>(),
        unkillable::programs::<S>(),
        leaks::programs::<S>(),
        ties::programs::<S>(),
        daemons::programs::<S>(),
        refused::programs::<S>(),
        broadcast::programs::<S>(),
        shared_results::programs::<S>(),
        descriptors::programs::<S>(),
        descriptor_lifetimes::programs::<S>(),
        descriptor_limits::programs::<S>(),
        limits::programs::<S>(),
        memory::programs::<S>(),
        recycling::programs::<S>(),
        wakeups::programs::<S>(),
        hostile::programs::<S>(),
        trace::programs::<S>(),
        output::programs::<S>(),
        progress::programs::<S>(),
        events::programs::<S>(),
    ]
    .concat()
}
