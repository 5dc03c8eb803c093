//! What is recorded of a pool of processes.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use procpool::{Pool, SpawnPool};

procpool::init_before_main!();

/// All that was recorded so far, with labels in order: counters since the last look.
fn figures(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    let named = all.map(|(key, _, _, value)| {
        let (_, key) = key.into_parts();
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(values) => values.len() as f64,
        };
        (format!("{} {}", key.name(), labels.join(" ")), value)
    });
    named.collect()
}

#[test]
fn items_and_workers_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("there is no other");

    let pool = SpawnPool::builder().processes(2).build().expect("a pool");
    let recorder = procpool::metrics::record(&pool, "test").expect("it can be observed");
    let square = |x: u64| x * x;
    let named = pool.call(square).name("square");
    assert_eq!(named.map(0..10).expect("it is easy").len(), 10);
    let fails = pool.call(|x: u64| assert_ne!(x, 1, "one")).name("fails");
    assert!(fails.apply(1).is_err());
    let ends = pool.call(|(): ()| -> u64 { std::process::abort() });
    assert!(ends.name("ends").apply(()).is_err());
    pool.close();
    pool.join().expect("its workers have ended");
    drop(recorder);

    let figures = figures(&snapshotter);
    let is = |name: &str| figures.get(name).copied();
    for (name, value) in [
        (
            "procpool_items_total call=square outcome=ok pool=test",
            10.0,
        ),
        (
            "procpool_items_total call=fails outcome=panicked pool=test",
            1.0,
        ),
        (
            "procpool_items_total call=ends outcome=worker_lost pool=test",
            1.0,
        ),
        ("procpool_item_run_seconds call=square pool=test", 10.0),
        ("procpool_item_wait_seconds call=square pool=test", 10.0),
        (
            "procpool_item_argument_bytes_total call=square pool=test",
            80.0,
        ),
        (
            "procpool_item_result_bytes_total call=square pool=test",
            80.0,
        ),
        ("procpool_worker_ends_total pool=test reason=crashed", 1.0),
        ("procpool_workers pool=test", 0.0),
        ("procpool_items_queued pool=test", 0.0),
    ] {
        assert_eq!(is(name), Some(value), "{name}: {figures:#?}");
    }
    // The third is in the place of the one that has crashed, if it was needed.
    let starts = is("procpool_worker_starts_total pool=test");
    assert!(starts >= Some(2.0), "{figures:#?}");
    let closed = is("procpool_worker_ends_total pool=test reason=closed");
    assert_eq!(closed.map(|closed| closed + 1.0), starts, "{figures:#?}");
}
