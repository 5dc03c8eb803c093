//! The storm: who takes part, from its beginning to its end.

use std::panic;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::backend::{self, Backend};
use super::call;
use super::command::StormOptions;
use super::holdings::{self, Holdings};
use super::ledger::Ledger;
use super::notes::RUNS;
use super::plan::Climate;
use super::pools::{self, Pools};
use super::victims::Victims;
use super::watchdog;

/// What all threads of a storm share.
pub(crate) struct Storm<B: Backend> {
    pub(crate) backend: B,
    pub(crate) pools: Arc<Pools<B>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) victims: Arc<Victims>,
    pub(crate) climate: Climate,
}

/// A fork server is killed together with its standby less often than once in this many seconds.
const SECONDS_PER_SERVER: u64 = 12;

/// How the messages of panics begin that are part of the storm and not in a worker.
const EXPECTED: [&str; 2] = ["a trap on the way", "callbacks may"];

/// How long what was ended may take to be gone.
const GRACE: Duration = Duration::from_secs(10);

/// Lets it blow. `false`: something happened that must not.
pub(crate) fn run<B: Backend>(options: &StormOptions, seed: u64) -> bool {
    hush();
    B::warm_up();
    let mut before = Holdings::now();
    let spares = if options.spare_servers {
        options.seconds / SECONDS_PER_SERVER + 2
    } else {
        0
    };
    // While there is one thread.
    let backend = B::prepare(spares as usize, seed);
    let without = Holdings::now().private;
    // After the fork servers were made, whose workers are not to be so large.
    backend::dump_once(B::KIND);
    before.private += Holdings::now().private.saturating_sub(without);
    let has_expendable = backend.expendable_server().is_some();
    let ledger = Arc::new(Ledger::new(seed));
    let storm = Storm {
        backend,
        pools: Arc::new(Pools::new()),
        ledger: ledger.clone(),
        victims: Arc::new(Victims::new()),
        climate: Climate {
            nested: options.nested.then_some(B::KIND),
            child_seconds: if has_expendable { 2 } else { 1000 },
            is_cluster: B::KIND.is_cluster(),
        },
    };
    let pools = storm.pools.clone();
    let describe = Box::new(move || pools.describe());
    let watchdog = watchdog::start(ledger.clone(), B::KIND.is_cluster(), describe);
    blow(&storm, options, seed);
    let victims = storm.victims.clone();
    let (built, failed) = (
        storm.pools.built.load(Ordering::Relaxed),
        storm.pools.failed.load(Ordering::Relaxed),
    );
    {
        let _operation = ledger.operation("end the last fork server");
        drop(storm);
    }
    wait_for_callbacks(&ledger);
    ledger.finish();
    let _ = watchdog.join();
    // The book has grown.
    before.private += ledger.kib();
    let after = settle(&before);
    if !after.is_within(&before) {
        let descriptors = holdings::descriptors();
        ledger.violation(&format!(
            "something is left: before {before}, after {after}: {descriptors:?}"
        ));
    }
    let file = PathBuf::from(std::env::var_os(RUNS).unwrap_or_default());
    let runs = ledger.check_runs(&file, &victims);
    if ledger.items() == 0 {
        ledger.violation("nobody has done anything");
    }
    if !options.peaceful {
        let effects = &victims.effects;
        for missing in effects.missing(B::KIND, options.seconds, has_expendable) {
            ledger.violation(&missing);
        }
    }
    println!(
        "{} seed {seed}: {} items; {}; {runs} noted runs; {}; {built} pools ({failed} not built); \
         peak {} KiB; before {before}; after {after}; {} violations",
        B::KIND.name(),
        ledger.items(),
        ledger.summary(),
        victims.effects.summary(B::KIND),
        holdings::peak(),
        ledger.violations(),
    );
    ledger.violations() == 0
}

/// Everything that has threads.
fn blow<B: Backend>(storm: &Storm<B>, options: &StormOptions, seed: u64) {
    let mut seeds = Rng::with_seed(seed);
    let mut rng = move || seeds.fork();
    thread::scope(|scope| {
        let (mut landlord, mut killer) = (rng(), rng());
        scope.spawn(move || pools::run(storm, &mut landlord));
        if !options.peaceful {
            scope.spawn(move || B::harm(storm, &mut killer));
        }
        for _ in 0..options.threads {
            let mut rng = rng();
            scope.spawn(move || call::run(storm, &mut rng));
        }
        let end = Instant::now() + Duration::from_secs(options.seconds);
        while Instant::now() < end && !storm.ledger.is_over() {
            thread::sleep(Duration::from_millis(20));
        }
        storm.ledger.stop();
    });
    pools::finish_all(storm, &mut rng());
    B::finish(storm);
}

/// Panics that are part of the storm say nothing.
fn hush() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message = info.payload().downcast_ref::<&str>().unwrap_or(&"");
        if !EXPECTED
            .iter()
            .any(|expected| message.starts_with(expected))
        {
            before(info);
        }
    }));
}

/// Callbacks run in their own time. The watchdog ends a wait that is in vain.
fn wait_for_callbacks(ledger: &Ledger) {
    while ledger.movement().1 > 0 {
        thread::sleep(Duration::from_millis(1));
    }
}

/// What is held when everything is gone that goes.
fn settle(before: &Holdings) -> Holdings {
    let end = Instant::now() + GRACE;
    loop {
        let now = Holdings::now();
        if now.is_within(before) || Instant::now() > end {
            return now;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
