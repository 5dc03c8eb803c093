//! What happened in a pool so far.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::worker_exit::ExitReason;
use crate::error::task_error::TaskErrorKind;
use crate::process::worker_info::WorkerInfo;

/// A snapshot of a pool's counters: what [`Pool::stats`](crate::Pool::stats) returns. Items are
/// counted, not calls.
///
/// To count costs nothing that could be measured; what has to be asked of the system is asked when
/// the snapshot is taken. Its `Display` is a table:
///
/// ```text
/// 1000 items: 998 succeeded, 2 failed (1 Panicked, 1 TimedOut), 0 queued, 0 running
/// 12.3 KiB to workers, 8.0 KiB from them; 3 workers started, 1 lost (1 Deadline)
/// worker            pid     up      busy  idle    items  queued  memory
/// PoolWorker-1      4711    2.41s   97%   72.3ms    731       0  3.1 MiB
/// PoolWorker-3      4713    1.20s   95%   60.0ms    268       0  3.0 MiB
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Items that were submitted.
    pub submitted: u64,
    /// Items that ended with a value.
    pub succeeded: u64,
    /// Items that ended with an error.
    pub failed: u64,
    /// The same by kind of error, those kinds that there were.
    pub failures: BTreeMap<TaskErrorKind, u64>,
    /// Those of the failed items that have a value, which is an `Err`: in calls that [count
    /// errors](crate::Call::count_errors).
    pub errors_returned: u64,
    /// Items that wait in the pool's queue.
    pub queued: u64,
    /// Items that were handed to a worker and have not ended. An item whose attempt has failed is
    /// one of them until it is known whether it is [tried again](crate::Call::retry_if).
    ///
    /// Each item is counted in one place: `submitted` is the sum of `succeeded`, `failed`, `queued`
    /// and `running`.
    pub running: u64,
    /// Bytes that were put into the workers' memory: arguments, and a little around them.
    pub bytes_sent: u64,
    /// Bytes that the workers have sent back: results, and a little around them.
    pub bytes_received: u64,
    /// Workers that were started, replacements included.
    pub workers_started: u64,
    /// Workers that did not leave in good order: they crashed, or were killed, also by the pool
    /// at an item's deadline.
    pub workers_lost: u64,
    /// Workers that were killed, or have died, and are not gone: something keeps them, such as a
    /// debugger, a frozen control group, or a system call that cannot be interrupted. They run no
    /// task any more and others have their places; [`dump`](crate::Pool::dump) names them.
    pub workers_terminating: u64,
    /// Why workers have ended, those reasons that there were: what replacements were for, and the
    /// end.
    pub workers_ended: BTreeMap<ExitReason, u64>,
    /// Lines of captured output that were lost because their handler was too slow: see
    /// [`Output::lines`](crate::Output::lines).
    pub lines_dropped: u64,
    /// Events of workers that were dropped since there were too many at once: see the builders'
    /// `forward_events`.
    pub events_dropped: u64,
    /// The workers that are up now.
    pub workers: Vec<WorkerStats>,
}

impl Stats {
    /// How many items have failed in this way.
    #[must_use]
    pub fn failed_as(&self, kind: TaskErrorKind) -> u64 {
        self.failures.get(&kind).copied().unwrap_or(0)
    }

    /// How many workers have ended for this reason.
    #[must_use]
    pub fn ended_for(&self, reason: ExitReason) -> u64 {
        self.workers_ended.get(&reason).copied().unwrap_or(0)
    }

    /// Counts this many items that have failed in this way: for a pool of your own.
    pub fn fail(&mut self, kind: TaskErrorKind, items: u64) {
        if items > 0 {
            self.failed += items;
            *self.failures.entry(kind).or_default() += items;
        }
    }
}

/// What one worker has done since it was reached, as a part of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Which worker it is.
    pub info: WorkerInfo,
    /// How long it has been up.
    pub up: Duration,
    /// How long it was at work, by its own word, with what it is at now.
    pub busy: Duration,
    /// How long it had nothing to do, or waited for memory to put results into.
    pub idle: Duration,
    /// Items that it has done, whatever their outcome.
    pub items: u64,
    /// Items that it was handed and that have no outcome: the one that it is at, and those that
    /// wait behind it.
    pub queued: u64,
    /// Bytes of memory that it has resident, shared memory included; `None` where the system does
    /// not say.
    pub rss: Option<u64>,
    /// Processor time that its process has taken, with all its threads, since it was started;
    /// `None` where the system does not say.
    pub cpu: Option<Duration>,
}

impl WorkerStats {
    /// Of a worker that has done nothing yet: for a pool of your own, which fills in the rest.
    #[must_use]
    pub fn new(info: WorkerInfo) -> Self {
        Self {
            info,
            up: Duration::ZERO,
            busy: Duration::ZERO,
            idle: Duration::ZERO,
            items: 0,
            queued: 0,
            rss: None,
            cpu: None,
        }
    }

    /// Its process identifier.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.info.pid()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} items: {} succeeded, {} failed",
            self.submitted, self.succeeded, self.failed
        )?;
        in_brackets(f, &self.failures)?;
        if self.errors_returned > 0 {
            write!(f, ", {} of them by their own word", self.errors_returned)?;
        }
        writeln!(f, ", {} queued, {} running", self.queued, self.running)?;
        write!(
            f,
            "{} to workers, {} from them; {} workers started, {} lost",
            Bytes(self.bytes_sent),
            Bytes(self.bytes_received),
            self.workers_started,
            self.workers_lost
        )?;
        in_brackets(f, &self.workers_ended)?;
        if self.workers_terminating > 0 {
            write!(f, ", {} not gone", self.workers_terminating)?;
        }
        if self.workers.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "\n{:<16}{:>8}{:>9}{:>6}{:>9}{:>9}{:>8}{:>11}",
            "worker", "pid", "up", "busy", "idle", "items", "queued", "memory"
        )?;
        if self.workers.iter().any(|it| it.info.machine().is_some()) {
            f.write_str("  machine")?;
        }
        for worker in &self.workers {
            let share = worker.busy.as_secs_f64() / worker.up.as_secs_f64().max(1e-9);
            write!(
                f,
                "\n{:<16}{:>8}{:>9}{:>5.0}%{:>9}{:>9}{:>8}{:>11}",
                worker.info.name(),
                worker.pid(),
                format!("{:.1?}", worker.up),
                100.0 * share,
                format!("{:.1?}", worker.idle),
                worker.items,
                worker.queued,
                worker
                    .rss
                    .map_or_else(String::new, |rss| Bytes(rss).to_string()),
            )?;
            if let Some(machine) = worker.info.machine() {
                write!(f, "  {}", machine.escape_debug())?;
            }
        }
        Ok(())
    }
}

/// What there was how often, if there was anything.
fn in_brackets<K: fmt::Debug>(
    f: &mut fmt::Formatter<'_>,
    counts: &BTreeMap<K, u64>,
) -> fmt::Result {
    for (place, (what, count)) in counts.iter().enumerate() {
        let before = if place == 0 { " (" } else { ", " };
        write!(f, "{before}{count} {what:?}")?;
    }
    if counts.is_empty() {
        Ok(())
    } else {
        f.write_str(")")
    }
}

/// Bytes for a reader.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_a_table() {
        let mut stats = Stats {
            submitted: 10,
            succeeded: 7,
            bytes_sent: 2048,
            ..Stats::default()
        };
        stats.fail(TaskErrorKind::Panicked, 2);
        stats.fail(TaskErrorKind::TimedOut, 1);
        stats.fail(TaskErrorKind::Closed, 0);
        stats.workers_ended.insert(ExitReason::Deadline, 1);
        stats.workers.push(WorkerStats {
            info: WorkerInfo::new(3, 0, 4711),
            up: Duration::from_secs(2),
            busy: Duration::from_secs(1),
            idle: Duration::from_secs(1),
            items: 7,
            queued: 0,
            rss: Some(3 << 20),
            cpu: None,
        });
        let text = stats.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "10 items: 7 succeeded, 3 failed (2 Panicked, 1 TimedOut), 0 queued, 0 running"
        );
        assert!(
            lines[1].starts_with("2.0 KiB to workers, 0 B from"),
            "{text}"
        );
        assert!(lines[1].ends_with("0 lost (1 Deadline)"), "{text}");
        assert!(
            lines[3].contains("PoolWorker-3") && lines[3].contains("50%"),
            "{text}"
        );
        assert_eq!(lines[2].len(), lines[3].len(), "{text}");
        let elsewhere = WorkerInfo::new(4, 0, 4712).with_machine("node\u{1b}7");
        stats.workers.push(WorkerStats::new(elsewhere));
        let text = stats.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].ends_with("memory  machine"), "{text}");
        assert!(lines[3].ends_with("3.0 MiB"), "{text}");
        assert!(lines[4].ends_with("  node\\u{1b}7"), "{text}");
    }
}
