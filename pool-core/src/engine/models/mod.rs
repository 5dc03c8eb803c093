//! The concurrent parts under model checkers; see "Proof" in `ARCHITECTURE.md`.

#[cfg(loom)]
mod end_watch;
mod fake;
#[cfg(shuttle)]
mod launcher;
#[cfg(shuttle)]
mod lifecycle;
#[cfg(shuttle)]
mod lingering;
#[cfg(loom)]
mod open_chunk;
#[cfg(shuttle)]
mod pool;
#[cfg(loom)]
mod reclaim;
#[cfg(shuttle)]
mod retry;
#[cfg(loom)]
mod ring;
#[cfg(loom)]
mod round_trip;
#[cfg(shuttle)]
mod stream;

/// How long each model may take that has no end.
fn seconds() -> f64 {
    std::env::var("MODEL_SECONDS").map_or(1.0, |seconds| {
        seconds.parse().expect("MODEL_SECONDS is a number")
    })
}

/// Tries all schedules of a model with at most this many switches away from a thread that could go
/// on; that is where almost all defects are, and the rest grows beyond all measure.
#[cfg(loom)]
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = ::loom::model::Builder::new();
    // With more time, one more.
    let preemptions = preemptions + usize::from(seconds() >= 60.0);
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 100_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = runs.clone();
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!(
        "{} schedules",
        runs.load(std::sync::atomic::Ordering::Relaxed)
    );
}

/// Tries random schedules of a model: half of them random at every step, and half of them with
/// few changes, at random places, of who goes before whom (PCT).
#[cfg(shuttle)]
fn explore(model: fn()) {
    use ::shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
    use ::shuttle::{Config, FailurePersistence, MaxSteps, Runner};

    /// Shuttle prints the seed when a scheduler is dropped before its last run.
    const RUNS: usize = 20;

    /// A schedule that failed is kept in a file; `MODEL_SCHEDULE` runs that one again.
    fn run(scheduler: impl Scheduler + 'static, model: fn()) -> usize {
        let mut config = Config::new();
        config.stack_size = 1 << 18;
        config.max_steps = MaxSteps::FailAfter(200_000);
        config.failure_persistence = FailurePersistence::File(Some(std::env::temp_dir()));
        config.silence_warnings = true;
        Runner::new(fake::ClockLast::new(scheduler), config).run(move || {
            let clock = crate::sync::thread::Builder::new().spawn(crate::sys::Clock::run);
            model();
            crate::sys::Clock::stop();
            clock.expect("a thread").join().expect("no panic");
        })
    }

    // Once outside, since it reads files.
    crate::process::code::find_own_image().expect("code");
    if let Some(schedule) = std::env::var_os("MODEL_SCHEDULE") {
        let scheduler = ReplayScheduler::new_from_file(schedule).expect("a schedule");
        run(scheduler, model);
        return;
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs_f64(seconds());
    let mut schedules = 0;
    while std::time::Instant::now() < end {
        schedules += run(RandomScheduler::new(RUNS), model);
        for depth in [2, 3, 5, 10] {
            schedules += run(PctScheduler::new(depth, RUNS / 4), model);
        }
    }
    println!("{schedules} schedules");
}
