//! Is it slower than it was? One run against an earlier one.

use crate::contender::Role;
use crate::format::{ratio, size, value};
use crate::record::{Record, Report};

/// What is within so much of the earlier median is no change, however small the spread was: another
/// build of the same source differs by as much.
const TOLERANCE: f64 = 0.10;

/// Memory and numbers of events may grow by so much, in their unit, before it is a change.
const NOISE_OF_COUNTS: f64 = 65_536.0;

/// A pool of ours that got slower, or faster, by more than the spread of both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Of which workload, at which size.
    pub workload: String,
    /// See [`Record::size`].
    pub size: Option<u64>,
    /// Who.
    pub contender: String,
    /// The medians, in words.
    pub from_to: String,
    /// The median now, divided by the earlier one.
    pub factor: f64,
}

impl Change {
    /// Whether it got worse.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        self.factor > 1.0
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let at = self
            .size
            .map_or_else(String::new, |at| format!(" at {}", size(false, at)));
        format!(
            "{} {}{at}, {}: {} ({})",
            if self.is_regression() {
                "SLOWER"
            } else {
                "faster"
            },
            self.workload,
            self.contender,
            self.from_to,
            ratio(self.factor),
        )
    }
}

/// Everything of ours that has changed beyond the spread of both runs. What only one of them
/// measured is left out.
#[must_use]
pub fn changes(earlier: &Report, now: &Report) -> Vec<Change> {
    let same = |a: &Record, b: &Record| {
        a.workload == b.workload && a.size == b.size && a.contender == b.contender
    };
    now.records
        .iter()
        .filter(|record| record.role == Role::Ours)
        .filter_map(|record| {
            let before = earlier.records.iter().find(|before| same(before, record))?;
            change(before, record)
        })
        .collect()
}

fn change(before: &Record, now: &Record) -> Option<Change> {
    let (old, new) = (&before.summary, &now.summary);
    let noise = match now.unit {
        crate::workload::Unit::Seconds => 0.0,
        crate::workload::Unit::Bytes if now.workload != "queue" => NOISE_OF_COUNTS,
        _ => 1.0,
    };
    // The quartiles must not overlap, and the medians must differ by more than builds do.
    let slower = new.lower > old.upper && new.median > old.median * (1.0 + TOLERANCE) + noise;
    let faster = new.upper < old.lower && new.median < old.median / (1.0 + TOLERANCE) - noise;
    (slower || faster).then(|| Change {
        workload: now.workload.clone(),
        size: now.size,
        contender: now.contender.clone(),
        from_to: format!(
            "{} before, {} now",
            value(now.unit, old.median),
            value(now.unit, new.median)
        ),
        factor: new.median / old.median,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::record::SCHEMA;
    use crate::statistics::Summary;
    use crate::workload::Unit;

    fn report(role: Role, samples: &[f64]) -> Report {
        Report {
            schema: SCHEMA,
            machine: Machine::default(),
            rounds: samples.len(),
            workers: 2,
            quick: false,
            seconds: 1.0,
            targets: Vec::new(),
            notes: Vec::new(),
            records: vec![Record {
                workload: "apply".to_owned(),
                size: None,
                contender: "ForkPool".to_owned(),
                role,
                unit: Unit::Seconds,
                n: 10,
                samples: samples.to_vec(),
                summary: Summary::of(samples).expect("there are samples"),
            }],
        }
    }

    fn compare(before: &[f64], now: &[f64]) -> Vec<Change> {
        changes(&report(Role::Ours, before), &report(Role::Ours, now))
    }

    #[test]
    fn slower_beyond_the_spread_is_a_regression() {
        let found = compare(&[1.0, 1.05, 0.95], &[1.3, 1.25, 1.35]);
        assert_eq!(found.len(), 1);
        assert!(found[0].is_regression());
        let line = found[0].line();
        assert!(
            line.starts_with("SLOWER apply, ForkPool: 1 s before, 1.30 s now"),
            "{line}"
        );
    }

    #[test]
    fn a_wide_spread_hides_a_small_change() {
        assert_eq!(compare(&[1.0, 1.6, 0.8], &[1.3, 1.25, 1.35]), []);
        assert_eq!(compare(&[1.0, 1.0, 1.0], &[1.3, 0.9, 0.95]), []);
    }

    #[test]
    fn what_builds_differ_by_is_no_change() {
        assert_eq!(compare(&[1.0, 1.0, 1.0], &[1.09, 1.09, 1.09]), []);
        assert_eq!(compare(&[1.0, 1.0, 1.0], &[1.12, 1.12, 1.12]).len(), 1);
    }

    #[test]
    fn faster_is_told_but_is_no_regression() {
        let found = compare(&[2.0, 2.0, 2.0], &[1.0, 1.0, 1.0]);
        assert_eq!(found.len(), 1);
        assert!(!found[0].is_regression());
    }

    #[test]
    fn others_may_get_slower() {
        let before = report(Role::Rival, &[1.0]);
        assert_eq!(changes(&before, &report(Role::Rival, &[9.0])), []);
    }

    #[test]
    fn a_report_survives_its_file() {
        let report = report(Role::Ours, &[1.0, 2.0]);
        let text = serde_json::to_string(&report).expect("it has a form");
        let read: Report = serde_json::from_str(&text).expect("it is what was written");
        assert_eq!(read.records, report.records);
    }
}
