//! The report as one page that needs nothing else.

use anyhow::Result;

use super::{chart, table};
use crate::contender::Role;
use crate::curve::CURVES;
use crate::format::{ratio, size, value};
use crate::record::{Record, Report, find};
use crate::target::Verdict;

const STYLE: &str = include_str!("report.css");

/// The whole page.
///
/// # Errors
/// When a chart cannot be drawn.
pub fn page(report: &Report) -> Result<String> {
    let mut body = format!(
        "<h1>procpool compared</h1>\n<p>{}</p>\n<p>{} rounds, {} workers where nothing else is said, {:.0} s{}. \
         Everybody ran in turns, and every result was checked. Bars and points are medians; whiskers and \
         ranges reach from quartile to quartile. Times are per item; <i>n</i> is the number of items that a sample is \
         the mean of, fewer for those who are slow.</p>\n",
        escape(&report.machine.line()),
        report.rounds,
        report.workers,
        report.seconds,
        if report.quick { ", a quick run" } else { "" },
    );
    if let Some(warning) = report.machine.warning() {
        body += &format!("<p class=\"warning\">{}</p>\n", escape(warning));
    }
    // What is missed beside others' work is no alarm.
    let alarms = report.machine.warning().is_none();
    body += &targets(&report.targets, alarms);
    let mut keys: Vec<&str> = Vec::new();
    for record in report.records.iter().filter(|record| record.size.is_none()) {
        if !keys.contains(&record.workload.as_str()) {
            keys.push(&record.workload);
        }
    }
    for key in keys {
        body += &workload(report, key)?;
    }
    body += &curves(report)?;
    if !report.notes.is_empty() {
        body += "<h2>Not measured</h2>\n<ul>\n";
        for note in &report.notes {
            body += &format!("<li>{}</li>\n", escape(note));
        }
        body += "</ul>\n";
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>procpool compared</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ))
}

fn targets(verdicts: &[Verdict], alarms: bool) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    let mut text = format!(
        "<h2>Targets: {met} of {} met</h2>\n<table>\n<tr><th></th><th>workload</th><th>pool</th>\
         <th class=\"number\">measured</th><th>wanted</th></tr>\n",
        verdicts.len()
    );
    for verdict in verdicts {
        let (class, word) = match (verdict.met, alarms) {
            (true, _) => ("met", "met"),
            (false, true) => ("missed", "missed"),
            (false, false) => ("", "missed"),
        };
        text += &format!(
            "<tr><td class=\"{class}\">{word}</td><td>{}</td><td>{}</td><td class=\"number\">{}</td><td>{}</td></tr>\n",
            escape(&verdict.row),
            escape(&verdict.contender),
            escape(&verdict.measured),
            escape(&verdict.wanted),
        );
    }
    text + "</table>\n"
}

fn workload(report: &Report, key: &str) -> Result<String> {
    let rows: Vec<&Record> = report
        .records
        .iter()
        .filter(|record| record.workload == key && record.size.is_none())
        .collect();
    let mut chart = chart::bars(&rows)?;
    if chart.is_empty() {
        "<p>0 for everybody.</p>".clone_into(&mut chart);
    }
    let mut text = format!(
        "<h2>{}</h2>\n{chart}\n<details><summary>numbers</summary>\n<table>\n<tr><th></th>\
         <th class=\"number\">median</th><th class=\"number\">quartiles</th><th class=\"number\">n</th>\
         <th class=\"number\">/ floor</th><th class=\"number\">/ ForkPool</th><th class=\"number\">/ SpawnPool</th></tr>\n",
        escape(table::title(key)),
    );
    for record in rows {
        let own = record.summary.median;
        let against = |other: Option<&Record>| {
            other.map_or_else(|| "-".to_owned(), |other| ratio(own / other.summary.median))
        };
        let cells = [
            value(record.unit, own),
            format!(
                "{} .. {}",
                value(record.unit, record.summary.lower),
                value(record.unit, record.summary.upper)
            ),
            size(false, record.n),
            against(table::floor(&report.records, key, None)),
            against(find(&report.records, key, "ForkPool")),
            against(find(&report.records, key, "SpawnPool")),
        ];
        let class = if record.role == Role::Ours {
            " class=\"ours\""
        } else {
            ""
        };
        text += &format!("<tr{class}><td>{}</td>", escape(&record.contender));
        for cell in cells {
            text += &format!("<td class=\"number\">{}</td>", escape(&cell));
        }
        text += "</tr>\n";
    }
    Ok(text + "</table>\n</details>\n")
}

fn curves(report: &Report) -> Result<String> {
    let mut text = String::new();
    for curve in CURVES {
        let points: Vec<&Record> = report
            .records
            .iter()
            .filter(|record| record.workload == curve.key)
            .collect();
        if points.is_empty() {
            continue;
        }
        text += &format!(
            "<h2>{}</h2>\n{}\n<p class=\"legend\">",
            escape(curve.title),
            chart::lines(curve, &points)?
        );
        for name in table::names(&points) {
            let role = points
                .iter()
                .find(|point| point.contender == name)
                .map(|point| point.role);
            let color = chart::color(name, role.unwrap_or(Role::Ours));
            text += &format!(
                "<span><i style=\"background:rgb({},{},{})\"></i>{}</span> ",
                color.0,
                color.1,
                color.2,
                escape(name)
            );
        }
        text += &format!(
            "</p>\n<details><summary>numbers</summary><pre>{}</pre></details>\n",
            escape(table::curve(&report.records, curve).trim_start())
        );
    }
    Ok(text)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_tag_is_text() {
        assert_eq!(escape("Vec<u8> & co"), "Vec&lt;u8&gt; &amp; co");
    }
}
