//! Figures of a pool, by the [`metrics`] facade: what a program installs as its recorder, such as
//! an exporter for Prometheus, gets them.
//!
//! ```
//! use procpool_core as procpool;
//! use procpool::{Pool, SerialPool};
//!
//! let pool = SerialPool::new();
//! let recorder = procpool_metrics::record(&pool, "thumbnails")?;
//! pool.call(|x: u64| x * x).name("square").map(0..10)?;
//! drop(recorder);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | name | kind | labels beside `pool` | |
//! |---|---|---|---|
//! | `procpool_items_total` | counter | `call`, `outcome` | items that have ended |
//! | `procpool_item_wait_seconds` | histogram | `call` | from its submission until a worker began it |
//! | `procpool_item_run_seconds` | histogram | `call` | how long the function ran |
//! | `procpool_item_cpu_seconds_total` | counter | `call` | processor time, in whole seconds |
//! | `procpool_item_argument_bytes_total` | counter | `call` | encoded arguments |
//! | `procpool_item_result_bytes_total` | counter | `call` | encoded results |
//! | `procpool_worker_starts_total` | counter | | workers that were up |
//! | `procpool_worker_ends_total` | counter | `reason` | and have ended |
//! | `procpool_refused_calls_total` | counter | `syscall` | system calls that a sandbox has refused |
//! | `procpool_events_missed_total` | counter | | what came too fast to be counted above |
//! | `procpool_workers` | gauge | | workers that are up |
//! | `procpool_items_queued` | gauge | | items that wait for a worker |
//! | `procpool_items_running` | gauge | | items that a worker has |
//! | `procpool_workers_resident_bytes` | gauge | | memory of the workers, shared memory in each |
//!
//! `call` is the [name](procpool_core::Call::name) of the call, or that of the function.
//! `outcome` is `ok` or the kind of error, such as `panicked`. The names follow the conventions of
//! Prometheus: base units, and `_total` behind what only grows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use procpool_core::{
    Observe, Observer, Pool, PoolEvent, StopHandle, TaskErrorKind, TaskMetrics, WeakPool,
};

/// How often gauges are set.
const EVERY: Duration = Duration::from_secs(1);

/// Records what happens in a pool until it is dropped: what [`record`] returns.
#[must_use = "nothing is recorded any more when it is dropped"]
pub struct Recorder {
    stop: StopHandle,
    thread: Option<JoinHandle<()>>,
}

/// Records what happens in the pool from now on, with this name as the label `pool`, in a thread of
/// its own. Gauges are set once a second.
///
/// Each item is measured for that, which costs a few microseconds.
///
/// # Errors
/// When the pool is one that cannot be observed, or the system refuses a thread.
pub fn record(pool: &impl Pool, name: impl Into<String>) -> io::Result<Recorder> {
    describe();
    let observer = pool.observe(Observe::Items)?;
    let pool = pool.downgrade();
    let stop = observer.stop_handle();
    let name = name.into();
    let thread = std::thread::Builder::new()
        .name("procpool-metrics".into())
        .spawn(move || Figures::new(name, pool).keep(observer))?;
    Ok(Recorder {
        stop,
        thread: Some(thread),
    })
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // It panics where the program's recorder does, and has said so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// The figures of one pool.
struct Figures {
    pool: String,
    weak: WeakPool,
    /// By the name of their call.
    calls: HashMap<Cow<'static, str>, OfCall>,
    missed: u64,
    workers: Gauge,
    queued: Gauge,
    running: Gauge,
    resident: Gauge,
}

/// The figures of calls of one name.
struct OfCall {
    outcomes: HashMap<Option<TaskErrorKind>, Counter>,
    wait: Histogram,
    run: Histogram,
    /// Processor time of less than a second, which a counter cannot have.
    cpu_rest: Duration,
    cpu: Counter,
    argument_bytes: Counter,
    result_bytes: Counter,
}

impl Figures {
    fn new(pool: String, weak: WeakPool) -> Self {
        let label = || pool.clone();
        Self {
            workers: gauge!("procpool_workers", "pool" => label()),
            queued: gauge!("procpool_items_queued", "pool" => label()),
            running: gauge!("procpool_items_running", "pool" => label()),
            resident: gauge!("procpool_workers_resident_bytes", "pool" => label()),
            calls: HashMap::new(),
            missed: 0,
            pool,
            weak,
        }
    }

    /// Until the observer is stopped.
    fn keep(mut self, mut observer: Observer) {
        let mut next = Instant::now();
        while !observer.has_stopped() {
            let now = Instant::now();
            if next <= now {
                self.look(&observer);
                next = now + EVERY;
            }
            if let Some(event) = observer.recv_timeout(next - now) {
                self.count(event);
            }
        }
        self.look(&observer);
    }

    /// Sets the gauges.
    fn look(&mut self, observer: &Observer) {
        let missed = observer.dropped();
        if missed > self.missed {
            counter!("procpool_events_missed_total", "pool" => self.pool.clone())
                .increment(missed - self.missed);
            self.missed = missed;
        }
        // Of a pool that is no more, there is nothing.
        let stats = self.weak.stats().unwrap_or_default();
        self.workers.set(stats.workers.len() as f64);
        self.queued.set(stats.queued as f64);
        self.running.set(stats.running as f64);
        let resident = stats.workers.iter().filter_map(|it| it.rss);
        self.resident.set(resident.sum::<u64>() as f64);
    }

    fn count(&mut self, event: PoolEvent) {
        let pool = || self.pool.clone();
        match event {
            PoolEvent::WorkerUp { .. } => {
                counter!("procpool_worker_starts_total", "pool" => pool()).increment(1);
            }
            PoolEvent::WorkerEnded { reason, .. } => {
                let reason = snake_case(&format!("{reason:?}"));
                counter!("procpool_worker_ends_total", "pool" => pool(), "reason" => reason)
                    .increment(1);
            }
            PoolEvent::CallRefused { call, .. } => {
                counter!("procpool_refused_calls_total", "pool" => pool(), "syscall" => call)
                    .increment(1);
            }
            PoolEvent::ItemEnded {
                call,
                error,
                metrics,
                ..
            } => {
                let error = error.map(|error| error.kind());
                let of_call = match self.calls.get_mut(&call) {
                    Some(known) => known,
                    None => {
                        let new = OfCall::new(&self.pool, &call);
                        self.calls.entry(call.clone()).or_insert(new)
                    }
                };
                of_call.count(&self.pool, &call, error, &metrics);
            }
            _ => {}
        }
    }
}

impl OfCall {
    fn new(pool: &str, call: &str) -> Self {
        let labels = || [("pool", pool.to_owned()), ("call", call.to_owned())];
        Self {
            outcomes: HashMap::new(),
            wait: histogram!("procpool_item_wait_seconds", &labels()),
            run: histogram!("procpool_item_run_seconds", &labels()),
            cpu_rest: Duration::ZERO,
            cpu: counter!("procpool_item_cpu_seconds_total", &labels()),
            argument_bytes: counter!("procpool_item_argument_bytes_total", &labels()),
            result_bytes: counter!("procpool_item_result_bytes_total", &labels()),
        }
    }

    fn count(
        &mut self,
        pool: &str,
        call: &str,
        error: Option<TaskErrorKind>,
        metrics: &TaskMetrics,
    ) {
        let outcome = self.outcomes.entry(error).or_insert_with(|| {
            let outcome =
                error.map_or_else(|| "ok".into(), |kind| snake_case(&format!("{kind:?}")));
            let labels = [
                ("pool", pool.to_owned()),
                ("call", call.to_owned()),
                ("outcome", outcome),
            ];
            counter!("procpool_items_total", &labels)
        });
        outcome.increment(1);
        if let Some(queued) = metrics.queued {
            self.wait.record(queued.as_secs_f64());
        }
        if let Some(run) = metrics.run {
            self.run.record(run.as_secs_f64());
        }
        self.cpu_rest += metrics.cpu.unwrap_or_default();
        self.cpu.increment(self.cpu_rest.as_secs());
        self.cpu_rest = Duration::from_nanos(self.cpu_rest.subsec_nanos().into());
        self.argument_bytes.increment(metrics.argument_bytes);
        self.result_bytes.increment(metrics.result_bytes);
    }
}

/// `TimedOut` becomes `timed_out`.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for (place, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && place > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Says what each is, where the program's recorder wants to know.
fn describe() {
    let counters = [
        ("procpool_items_total", Unit::Count, "Items that have ended"),
        (
            "procpool_item_cpu_seconds_total",
            Unit::Seconds,
            "Processor time of items",
        ),
        (
            "procpool_item_argument_bytes_total",
            Unit::Bytes,
            "Encoded arguments of items",
        ),
        (
            "procpool_item_result_bytes_total",
            Unit::Bytes,
            "Encoded results of items",
        ),
        (
            "procpool_worker_starts_total",
            Unit::Count,
            "Workers that were up",
        ),
        (
            "procpool_worker_ends_total",
            Unit::Count,
            "Workers that have ended",
        ),
        (
            "procpool_refused_calls_total",
            Unit::Count,
            "System calls that a sandbox has refused",
        ),
        (
            "procpool_events_missed_total",
            Unit::Count,
            "Events that came too fast to be counted",
        ),
    ];
    for (name, unit, about) in counters {
        describe_counter!(name, unit, about);
    }
    let histograms = [
        (
            "procpool_item_wait_seconds",
            "From an item's submission until a worker began it",
        ),
        (
            "procpool_item_run_seconds",
            "How long an item's function ran",
        ),
    ];
    for (name, about) in histograms {
        describe_histogram!(name, Unit::Seconds, about);
    }
    let gauges = [
        ("procpool_workers", Unit::Count, "Workers that are up"),
        (
            "procpool_items_queued",
            Unit::Count,
            "Items that wait for a worker",
        ),
        (
            "procpool_items_running",
            Unit::Count,
            "Items that a worker has",
        ),
        (
            "procpool_workers_resident_bytes",
            Unit::Bytes,
            "Memory of the workers",
        ),
    ];
    for (name, unit, about) in gauges {
        describe_gauge!(name, unit, about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_labels() {
        let kinds = [TaskErrorKind::TimedOut, TaskErrorKind::Panicked];
        let labels = kinds.map(|kind| snake_case(&format!("{kind:?}")));
        assert_eq!(labels, ["timed_out", "panicked"]);
    }
}
