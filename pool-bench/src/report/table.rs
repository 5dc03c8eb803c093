//! The report as text, for the terminal.

use crate::contender::Role;
use crate::curve::{CURVES, Curve};
use crate::format::{ratio, size, value};
use crate::record::{Record, find};
use crate::target::Verdict;
use crate::workload::WORKLOADS;

/// The floor of a workload: the fastest one, where there are several.
#[must_use]
pub fn floor<'a>(records: &'a [Record], workload: &str, size: Option<u64>) -> Option<&'a Record> {
    let floors = records.iter().filter(|record| {
        record.workload == workload && record.size == size && record.role == Role::Floor
    });
    floors.min_by(|a, b| a.summary.median.total_cmp(&b.summary.median))
}

/// What a workload or curve is called.
#[must_use]
pub fn title(key: &str) -> &str {
    let workloads = WORKLOADS
        .iter()
        .map(|workload| (workload.key, workload.title));
    let curves = CURVES.iter().map(|curve| (curve.key, curve.title));
    let idle = [
        (
            "idle-switches",
            "idle pool: context switches of everybody in it",
        ),
        ("idle-memory", "idle pool: private memory of each worker"),
    ];
    let mut all = workloads.chain(curves).chain(idle);
    all.find(|row| row.0 == key).map_or(key, |row| row.1)
}

/// The table of one workload: everybody's median, spread, number of items, and the ratios.
#[must_use]
pub fn workload(records: &[Record], key: &str) -> String {
    let rows: Vec<&Record> = records
        .iter()
        .filter(|record| record.workload == key && record.size.is_none())
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{}\n  {:<38} {:>10}  {:>23}  {:>10}  {:>10}  {:>10}  {:>10}\n",
        title(key),
        "",
        "median",
        "quartiles",
        "n",
        "/ floor",
        "/ ForkPool",
        "/ SpawnPool"
    );
    for record in rows {
        let own = record.summary.median;
        let against = |other: Option<&Record>| {
            other.map_or_else(|| "-".to_owned(), |other| ratio(own / other.summary.median))
        };
        let quartiles = format!(
            "{} .. {}",
            value(record.unit, record.summary.lower),
            value(record.unit, record.summary.upper)
        );
        text += &format!(
            "  {:<38} {:>10}  {:>23}  {:>10}  {:>10}  {:>10}  {:>10}\n",
            record.contender,
            value(record.unit, own),
            quartiles,
            size(false, record.n),
            against(floor(records, key, None)),
            against(find(records, key, "ForkPool")),
            against(find(records, key, "SpawnPool")),
        );
    }
    text
}

/// The table of a curve: a row for each contender, a column for each size.
#[must_use]
pub fn curve(records: &[Record], curve: &Curve) -> String {
    let points: Vec<&Record> = records
        .iter()
        .filter(|record| record.workload == curve.key)
        .collect();
    let sizes = sizes(&points);
    if sizes.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n  {:<30}", curve.title, curve.axis.label());
    for &column in &sizes {
        text += &format!(" {:>10}", size(curve.axis.is_bytes(), column));
    }
    text.push('\n');
    for name in names(&points) {
        text += &format!("  {name:<30}");
        for &column in &sizes {
            let point = points
                .iter()
                .find(|point| point.contender == name && point.size == Some(column));
            let shown = point.map_or_else(
                || "-".to_owned(),
                |point| value(point.unit, point.summary.median),
            );
            text += &format!(" {shown:>10}");
        }
        text.push('\n');
    }
    text
}

/// Which contenders are in there, in the order of appearance.
#[must_use]
pub fn names<'a>(records: &[&'a Record]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for record in records {
        if !names.contains(&record.contender.as_str()) {
            names.push(record.contender.as_str());
        }
    }
    names
}

/// Which sizes are in there, in their order.
#[must_use]
pub fn sizes(records: &[&Record]) -> Vec<u64> {
    let mut sizes: Vec<u64> = records.iter().filter_map(|record| record.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The table of targets.
#[must_use]
pub fn targets(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let mut text = "\ntargets\n".to_owned();
    for verdict in verdicts {
        text += &format!(
            "  {:<6} {:<42} {:<10} {:>10}   wanted {}\n",
            if verdict.met { "met" } else { "MISSED" },
            verdict.row,
            verdict.contender,
            verdict.measured,
            verdict.wanted
        );
    }
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    text + &format!("  {met} of {} met\n", verdicts.len())
}
