//! The pools against sequential map: `cargo bench -p pool-bench`.
//!
//! Criterion times each contender by itself, one after the other; for a comparison within one run, see
//! `cargo run --release -p pool-bench`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use procpool::{ForkPool, ForkServer, Pool, SerialPool, SpawnPool};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A worker of the SpawnPool comes this way too, and goes no further.
    procpool::init();
    // Before anything has started a thread.
    let server = ForkServer::start()?;
    let fork = ForkPool::builder().fork_server(&server).processes(2);
    let fork = fork.build()?;
    let spawn = SpawnPool::builder().processes(2).build()?;
    let mut criterion = Criterion::default().configure_from_args();
    sequential(&mut criterion);
    pool(&mut criterion, "SerialPool", &SerialPool::new());
    pool(&mut criterion, "ForkPool", &fork);
    pool(&mut criterion, "SpawnPool", &spawn);
    criterion.final_summary();
    Ok(())
}

const ITEMS: u64 = 100_000;

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn sequential(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function(BenchmarkId::new("sequential", ITEMS), |bencher| {
        bencher.iter(|| (0..ITEMS).map(|x| square(black_box(x))).collect::<Vec<_>>());
    });
    group.finish();
}

fn pool<P: Pool>(criterion: &mut Criterion, name: &str, pool: &P) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function(BenchmarkId::new(name, ITEMS), |bencher| {
        bencher.iter(|| pool.map(square, 0..ITEMS).expect("squares do not fail"));
    });
    group.finish();

    criterion.bench_function(&format!("apply/{name}"), |bencher| {
        bencher.iter(|| {
            pool.apply(square, black_box(3))
                .expect("squares do not fail")
        });
    });

    let mut group = criterion.benchmark_group("apply_async");
    group.throughput(Throughput::Elements(1000));
    group.bench_function(BenchmarkId::new(name, 1000), |bencher| {
        bencher.iter(|| {
            let handles: Vec<_> = (0..1000).map(|x| pool.apply_async(square, x)).collect();
            handles
                .into_iter()
                .map(|handle| handle.get().expect("squares do not fail"))
                .fold(0, u64::wrapping_add)
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("echo");
    for bytes in [1 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
            let payload = vec![7_u8; bytes];
            bencher.iter(|| {
                let echo = pool.apply(|bytes: Vec<u8>| bytes, payload.clone());
                echo.expect("an echo does not fail").len()
            });
        });
    }
    group.finish();
}
