//! The workloads of `compare` under criterion: `cargo bench -p procpool-bench`.
//!
//! Criterion times each contender alone, one after the other, and compares with its own last
//! run; for ratios between contenders, in turns within one run, see `cargo xtask compare`. An
//! iteration is one job, and the time is the one that the job itself takes, without what it checks
//! afterwards. Left out is what is no time at all (memory, context switches), the curves, and
//! rivals in other languages.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use procpool_bench::contender::Contender;
use procpool_bench::floor;
use procpool_bench::job::Job;
use procpool_bench::roster::Early;
use procpool_bench::scale::Scale;
use procpool_bench::spin::Pace;
use procpool_bench::workload::{Unit, WORKLOADS, Workload};

const WORKERS: usize = 2;

fn main() -> anyhow::Result<()> {
    // Workers and the floors' processes come this way too, and go no further.
    if floor::is_newborn() {
        return Ok(floor::newborn()?);
    }
    procpool::init();
    procspawn::init();
    // Before anything has started a thread.
    let early = Early::start()?;
    let pace = Pace::calibrate();
    let mut contenders = early.floors(pace, WORKERS);
    contenders.extend(early.locals(pace, WORKERS));
    let is_test = std::env::args().any(|argument| argument == "--test");
    let scale = if is_test { Scale::Tiny } else { Scale::Quick };
    let mut criterion = Criterion::default().configure_from_args();
    for workload in WORKLOADS {
        if workload.unit == Unit::Seconds && !workload.fresh {
            bench(&mut criterion, workload, scale, &mut contenders);
        }
    }
    criterion.final_summary();
    Ok(())
}

fn bench(
    criterion: &mut Criterion,
    workload: &Workload,
    scale: Scale,
    contenders: &mut [Box<dyn Contender>],
) {
    let mut group = criterion.benchmark_group(workload.key);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    for contender in contenders {
        let role = contender.role();
        let Some(job) = (workload.job)(role, scale, WORKERS as u64) else {
            continue;
        };
        let (warm_up, measurement) = match job {
            // Criterion does not see the pauses, which are a hundred times as long as what it sees.
            Job::ApplyAfterSleep { .. } => (5, 20),
            _ => (500, 2_000),
        };
        group
            .warm_up_time(Duration::from_millis(warm_up))
            .measurement_time(Duration::from_millis(measurement))
            .throughput(match job {
                Job::Echo { n, bytes, .. } => Throughput::Bytes(n * bytes),
                _ => Throughput::Elements(job.items()),
            });
        // Some have no such thing, which only trying shows.
        let smallest = (workload.job)(role, Scale::Tiny, WORKERS as u64);
        if smallest.is_none_or(|job| seconds(contender.as_mut(), job).is_none()) {
            continue;
        }
        let id = BenchmarkId::from_parameter(contender.name());
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .filter_map(|_| seconds(contender.as_mut(), job))
                    .map(Duration::from_secs_f64)
                    .sum()
            });
        });
    }
    group.finish();
}

/// The time of one whole job. `None`: this contender has no such thing.
fn seconds(contender: &mut dyn Contender, job: Job) -> Option<f64> {
    let outcome = contender.run(job);
    let measured = outcome.unwrap_or_else(|error| panic!("{}: {error:#}", contender.name()));
    measured.map(|measured| measured.value * measured.n as f64)
}
