//! What is wanted, and how near a run came to it.

use serde::{Deserialize, Serialize};

use crate::contender::Role;
use crate::format::value;
use crate::record::{Record, find};
use crate::workload::Unit;

/// How one pool of ours did at one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The row of the table of targets.
    pub row: String,
    /// Which pool.
    pub contender: String,
    /// What was wanted.
    pub wanted: String,
    /// What was measured, in the same terms.
    pub measured: String,
    /// The bare number of it.
    pub number: f64,
    /// Whether it is enough.
    pub met: bool,
}

/// What a pool's median is compared with.
enum Against {
    /// Its own size is what counts.
    Nothing,
    /// A floor: so many times as much.
    Floor(&'static str),
    /// Somebody: so many times as fast.
    Who(&'static str),
    /// The fastest of all rivals: so many times as fast.
    EveryRival,
    /// The same pool at another workload: so many times as fast.
    Itself(&'static str),
    /// Its own first point of the curve: the last is so many times as much.
    FirstPoint,
}

struct Target {
    row: &'static str,
    workload: &'static str,
    who: &'static [&'static str],
    against: Against,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Against::{EveryRival, FirstPoint, Floor, Itself, Nothing, Who};
use Limit::{AtLeast, AtMost};

const BOTH: &[&str] = &["ForkPool", "SpawnPool"];
const MIB: f64 = 1_048_576.0;

const fn target(
    row: &'static str,
    workload: &'static str,
    who: &'static [&'static str],
    against: Against,
    limit: Limit,
) -> Target {
    Target {
        row,
        workload,
        who,
        against,
        limit,
    }
}

const ROW_APPLY: &str = "apply of x*x, one in flight, warm";
const ROW_ASYNC: &str = "100,000 apply_async, each handle read";
const ROW_MAP: &str = "map of x*x over 10 million u64";
const ROW_IMAP: &str = "imap over an endless iterator, 1 µs items";
const ROW_IDLE: &str = "idle pool";
const BOUND: &str = "floor: max(total / workers, longest)";
const COPY: &str = "floor: memcpy, shared memory";

const CLUSTER: &[&str] = &["ClusterPool"];
const QUEUE: &str = "floor: NATS queue, worker, inbox";
const STORE: &str = "floor: NATS object store, put and get";

const TARGETS: &[Target] = &[
    target(ROW_APPLY, "apply", CLUSTER, Floor(QUEUE), AtMost(2.0)),
    target(ROW_APPLY, "apply", CLUSTER, Who("Ray"), AtLeast(4.0)),
    target(ROW_ASYNC, "apply-async", CLUSTER, Nothing, AtMost(3e-6)),
    target(
        ROW_ASYNC,
        "apply-async",
        CLUSTER,
        Who("Ray"),
        AtLeast(100.0),
    ),
    target(ROW_MAP, "map-squares", CLUSTER, Nothing, AtMost(250e-9)),
    target(ROW_MAP, "map-squares", CLUSTER, Who("Ray"), AtLeast(10.0)),
    target(
        ROW_MAP,
        "map-squares",
        CLUSTER,
        Who("mpi4py"),
        AtLeast(10.0),
    ),
    target(
        "10,000 items of 100 µs",
        "map-100us",
        CLUSTER,
        Floor(BOUND),
        AtMost(1.075),
    ),
    target(
        "echo of 16 MiB",
        "echo-bytes",
        CLUSTER,
        Floor(STORE),
        AtMost(2.0),
    ),
    target(
        "two agents ready, from nothing",
        "ready",
        CLUSTER,
        Nothing,
        AtMost(0.25),
    ),
    target(
        ROW_APPLY,
        "apply",
        BOTH,
        Floor("floor: spinning ring"),
        AtMost(6.0),
    ),
    target(ROW_APPLY, "apply", BOTH, Who("procspawn"), AtLeast(100.0)),
    target(
        ROW_APPLY,
        "apply",
        BOTH,
        Who("mp.Pool fork"),
        AtLeast(100.0),
    ),
    target(
        "apply after both sides have slept",
        "apply-after-sleep",
        BOTH,
        Floor("floor: futex"),
        AtMost(1.3),
    ),
    target(ROW_ASYNC, "apply-async", BOTH, Nothing, AtMost(300e-9)),
    target(
        ROW_ASYNC,
        "apply-async",
        BOTH,
        Who("mp.Pool fork"),
        AtLeast(100.0),
    ),
    target(ROW_MAP, "map-squares", BOTH, Nothing, AtMost(10e-9)),
    target(
        ROW_MAP,
        "map-squares",
        BOTH,
        Who("mp.Pool fork"),
        AtLeast(20.0),
    ),
    target(
        "map over items of 100 µs",
        "map-100us",
        BOTH,
        Who("rayon"),
        AtLeast(0.97),
    ),
    target(
        "heavy-tailed items",
        "map-tail",
        BOTH,
        Floor(BOUND),
        AtMost(1.05),
    ),
    target(
        "echo of a 16 MiB Vec<u8>",
        "echo-bytes",
        BOTH,
        Who(COPY),
        AtLeast(0.5),
    ),
    target(
        "echo of a 16 MiB Vec<u8>",
        "echo-bytes",
        BOTH,
        EveryRival,
        AtLeast(5.0),
    ),
    target(
        "echo of a 16 MiB Vec<f64>",
        "echo-floats",
        BOTH,
        Who(COPY),
        AtLeast(0.5),
    ),
    target(
        "echo of a 16 MiB Vec<f64>",
        "echo-floats",
        BOTH,
        EveryRival,
        AtLeast(5.0),
    ),
    target(ROW_IMAP, "imap-1us", BOTH, Itself("map-1us"), AtLeast(0.9)),
    target(ROW_IMAP, "imap-memory", BOTH, Nothing, AtMost(MIB)),
    target(
        "8 SpawnPool workers ready",
        "ready",
        &["SpawnPool"],
        Floor("floor: raw re-execs"),
        AtMost(1.3),
    ),
    target(
        "8 ForkPool workers ready",
        "ready",
        &["ForkPool"],
        Floor("floor: raw forks"),
        AtMost(2.0),
    ),
    target(ROW_IDLE, "idle-switches", BOTH, Nothing, AtMost(0.0)),
    target(
        ROW_IDLE,
        "idle-memory",
        &["SpawnPool"],
        Nothing,
        AtMost(MIB),
    ),
    target(
        ROW_IDLE,
        "idle-memory",
        &["ForkPool"],
        Nothing,
        AtMost(0.5 * MIB),
    ),
    target(
        "1 million queued tiny tasks, each",
        "queue",
        BOTH,
        Nothing,
        AtMost(200.0),
    ),
    target(
        "growth: cost per task flat",
        "growth-tasks",
        BOTH,
        FirstPoint,
        AtMost(1.5),
    ),
];

/// The verdicts on everything that was measured.
#[must_use]
pub fn judge(records: &[Record]) -> Vec<Verdict> {
    TARGETS
        .iter()
        .flat_map(|target| {
            target
                .who
                .iter()
                .filter_map(|who| target.judge(records, who))
        })
        .collect()
}

impl Target {
    fn judge(&self, records: &[Record], who: &str) -> Option<Verdict> {
        let median = |workload: &str, who: &str| Some(find(records, workload, who)?.summary.median);
        let (number, than) = match self.against {
            Nothing => (median(self.workload, who)?, String::new()),
            Floor(floor) => {
                let own = median(self.workload, who)?;
                (own / median(self.workload, floor)?, bare(floor).to_owned())
            }
            Who(other) => {
                let own = median(self.workload, who)?;
                (
                    median(self.workload, other)? / own,
                    format!("as fast as {}", bare(other)),
                )
            }
            EveryRival => {
                let own = median(self.workload, who)?;
                let rivals = records.iter().filter(|record| {
                    record.workload == self.workload && record.role == Role::Rival
                });
                let fastest =
                    rivals.min_by(|a, b| a.summary.median.total_cmp(&b.summary.median))?;
                let than = format!("as fast as the fastest rival ({})", fastest.contender);
                (fastest.summary.median / own, than)
            }
            Itself(other) => {
                let own = median(self.workload, who)?;
                (median(other, who)? / own, "as fast as map".to_owned())
            }
            FirstPoint => {
                let points = records
                    .iter()
                    .filter(|record| record.workload == self.workload && record.contender == who);
                let mut points: Vec<_> = points.collect();
                points.sort_by_key(|record| record.size);
                let (first, last) = (points.first()?, points.last()?);
                let than = format!("from {:?} to {:?} tasks", first.size?, last.size?);
                (last.summary.median / first.summary.median, than)
            }
        };
        let unit = find(records, self.workload, who).map_or(Unit::Count, |record| record.unit);
        let show = |number: f64| match self.against {
            Nothing => value(unit, number),
            _ => format!("{} ×", digits(number)),
        };
        let (met, wanted) = match self.limit {
            AtMost(limit) => (number <= limit, format!("≤ {} {than}", show(limit))),
            AtLeast(limit) => (number >= limit, format!("≥ {} {than}", show(limit))),
        };
        Some(Verdict {
            row: self.row.to_owned(),
            contender: who.to_owned(),
            wanted: wanted.trim_end().to_owned(),
            measured: show(number),
            number: crate::statistics::rounded(number),
            met,
        })
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("floor: ").unwrap_or(name)
}

/// Three digits, as far as they say something.
fn digits(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => {
            let text = format!("{number:.2}");
            text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Summary;

    fn record(workload: &str, contender: &str, role: Role, median: f64) -> Record {
        Record {
            workload: workload.to_owned(),
            size: None,
            contender: contender.to_owned(),
            role,
            unit: Unit::Seconds,
            n: 1,
            samples: vec![median],
            summary: Summary::of(&[median]).expect("there is a sample"),
        }
    }

    #[test]
    fn a_ratio_is_judged_in_the_right_direction() {
        let records = [
            record("apply", "ForkPool", Role::Ours, 1e-6),
            record("apply", "floor: spinning ring", Role::Floor, 0.2e-6),
            record("apply", "procspawn", Role::Rival, 90e-6),
        ];
        let verdicts = judge(&records);
        assert_eq!(verdicts.len(), 2, "{verdicts:?}");
        assert!(verdicts[0].met);
        assert_eq!(verdicts[0].wanted, "≤ 6 × spinning ring");
        assert_eq!(verdicts[0].measured, "5 ×");
        assert!(!verdicts[1].met);
        assert_eq!(verdicts[1].measured, "90.0 ×");
    }

    #[test]
    fn the_fastest_rival_counts() {
        let records = [
            record("echo-bytes", "SpawnPool", Role::Ours, 0.01),
            record("echo-bytes", "procspawn", Role::Rival, 0.2),
            record("echo-bytes", "mp.Pool fork", Role::Rival, 0.04),
        ];
        let verdicts = judge(&records);
        assert_eq!(verdicts.len(), 1);
        assert!(verdicts[0].wanted.ends_with("(mp.Pool fork)"));
        assert_eq!(verdicts[0].number, 4.0);
        assert!(!verdicts[0].met);
    }

    #[test]
    fn an_absolute_target_is_shown_in_its_unit() {
        let records = [record("apply-async", "ForkPool", Role::Ours, 250e-9)];
        let verdicts = judge(&records);
        assert_eq!(verdicts[0].wanted, "≤ 300 ns");
        assert_eq!(verdicts[0].measured, "250 ns");
        assert!(verdicts[0].met);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judge(&[]), []);
    }
}
