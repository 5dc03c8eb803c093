//! The report as one page that needs nothing else.

use super::{chart, table};
use crate::curve::{CURVES, Curve};
use crate::format::{ratio, size, value};
use crate::record::{Record, Report, find};
use crate::target::Verdict;

const STYLE: &str = include_str!("report.css");

/// A part of the page with a heading. One without a text is left out, and so is its link.
struct Section {
    id: &'static str,
    heading: String,
    text: String,
}

/// The whole page: the warning first, for it restricts all numbers; then results, then targets.
#[must_use]
pub fn page(report: &Report) -> String {
    let sections = sections(report);
    let mut body = "<h1>procpool compared</h1>\n".to_owned();
    if let Some(warning) = report.machine.warning() {
        body += &format!(
            "<p class=\"warning\" role=\"note\"><strong>Warning:</strong> {} \
             (load {} when the run began).</p>\n",
            escape(warning),
            report.machine.load_before,
        );
    }
    body += &format!(
        "<p>{}</p>\n<p>{} rounds, {} workers where nothing else is said, {:.0} s{}. Everybody ran \
         in turns, and every result was checked. Bars and points are medians; whiskers and ranges \
         reach from quartile to quartile. An axis that does not begin at 0 is logarithmic. Times \
         are per item; <i>n</i> is the number of items that a sample is the mean of, fewer for \
         those who are slow.</p>\n",
        escape(&report.machine.line()),
        report.rounds,
        report.workers,
        report.seconds,
        if report.quick { ", a quick run" } else { "" },
    );
    if sections.len() > 1 {
        body += "<nav>";
        for Section { id, heading, .. } in &sections {
            body += &format!("<a href=\"#{id}\">{heading}</a> ");
        }
        body += "</nav>\n";
    }
    for Section { id, heading, text } in sections {
        body += &format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{text}</section>\n");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>procpool compared</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// In the order of the page.
fn sections(report: &Report) -> Vec<Section> {
    let met = report.targets.iter().filter(|verdict| verdict.met).count();
    let notes = report.notes.iter();
    let notes: String = notes
        .map(|note| format!("<li>{}</li>\n", escape(note)))
        .collect();
    let section = |id, heading: &str, text| Section {
        id,
        heading: heading.to_owned(),
        text,
    };
    let targets_heading = format!("Targets: {met} of {} reached", report.targets.len());
    let mut sections = vec![
        section("results", "Results", in_columns(&workloads(report))),
        section("growth", "Growth", in_columns(&curves(report))),
        section("targets", &targets_heading, in_columns(&targets(report))),
        section("unmeasured", "Not measured", in_tag("ul", &notes)),
    ];
    sections.retain(|section| !section.text.is_empty());
    sections
}

/// Side by side, where there is room.
fn in_columns(parts: &str) -> String {
    in_tag("div class=\"columns\"", parts)
}

/// No text needs no tag.
fn in_tag(tag: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let name = tag.split(' ').next().unwrap_or(tag);
    format!("<{tag}>\n{text}</{name}>\n")
}

/// The reached ones, and then the missed ones.
fn targets(report: &Report) -> String {
    // A miss beside others' work is no alarm.
    let is_quiet = report.machine.warning().is_none();
    let missed = if is_quiet { "missed" } else { "" };
    [(true, "Reached", "met"), (false, "Missed", missed)]
        .map(|(met, heading, class)| {
            let mut rows = String::new();
            for verdict in report.targets.iter().filter(|verdict| verdict.met == met) {
                rows += &verdict_row(verdict, class);
            }
            if rows.is_empty() {
                return rows;
            }
            format!(
                "<article>\n<h3>{heading}</h3>\n<table class=\"targets\">\n<tr><th>workload</th>\
                 <th>pool</th><th class=\"number\">measured</th><th>wanted</th></tr>\n{rows}\
                 </table>\n</article>\n"
            )
        })
        .concat()
}

fn verdict_row(verdict: &Verdict, class: &str) -> String {
    format!(
        "<tr><td>{}</td><td>{}</td><td class=\"number {class}\">{}</td><td>{}</td></tr>\n",
        escape(&verdict.row),
        escape(&verdict.contender),
        escape(&verdict.measured),
        escape(&verdict.wanted),
    )
}

fn workloads(report: &Report) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for record in report.records.iter().filter(|record| record.size.is_none()) {
        if !keys.contains(&record.workload.as_str()) {
            keys.push(&record.workload);
        }
    }
    keys.into_iter().map(|key| workload(report, key)).collect()
}

fn workload(report: &Report, key: &str) -> String {
    let rows: Vec<&Record> = report
        .records
        .iter()
        .filter(|record| record.workload == key && record.size.is_none())
        .collect();
    let columns = [
        "median",
        "quartiles",
        "n",
        "/ floor",
        "/ ForkPool",
        "/ SpawnPool",
    ];
    let cells = rows.iter().map(|record| {
        let own = record.summary.median;
        let against = |other: Option<&Record>| {
            other.map_or_else(|| "-".to_owned(), |other| ratio(own / other.summary.median))
        };
        let quartiles = [record.summary.lower, record.summary.upper];
        let cells = vec![
            value(record.unit, own),
            quartiles.map(|x| value(record.unit, x)).join(" .. "),
            size(false, record.n),
            against(table::floor(&report.records, key, None)),
            against(find(&report.records, key, "ForkPool")),
            against(find(&report.records, key, "SpawnPool")),
        ];
        (*record, cells)
    });
    let numbers = numbers("", &columns.map(str::to_owned), cells);
    article(table::title(key), &chart::bars(&rows), &numbers)
}

fn curves(report: &Report) -> String {
    CURVES.iter().map(|row| curve(report, row)).collect()
}

fn curve(report: &Report, curve: &Curve) -> String {
    let points: Vec<&Record> = report
        .records
        .iter()
        .filter(|record| record.workload == curve.key && record.size.is_some())
        .collect();
    if points.is_empty() {
        return String::new();
    }
    let sizes = table::sizes(&points);
    let columns: Vec<String> = sizes
        .iter()
        .map(|&shown| size(curve.axis.is_bytes(), shown))
        .collect();
    let cells = table::names(&points).into_iter().filter_map(|name| {
        let own: Vec<&Record> = points
            .iter()
            .copied()
            .filter(|point| point.contender == name)
            .collect();
        let cell = |&size: &u64| {
            let point = own.iter().find(|point| point.size == Some(size));
            point.map_or_else(
                || "-".to_owned(),
                |point| value(point.unit, point.summary.median),
            )
        };
        Some((*own.first()?, sizes.iter().map(cell).collect()))
    });
    let numbers = numbers(curve.axis.label(), &columns, cells);
    article(curve.title, &chart::lines(curve, &points), &numbers)
}

/// A table with a row for each contender.
fn numbers<'a>(
    corner: &str,
    columns: &[String],
    rows: impl Iterator<Item = (&'a Record, Vec<String>)>,
) -> String {
    let mut text = format!("<table>\n<tr><th>{corner}</th>");
    for column in columns {
        text += &format!("<th class=\"number\">{column}</th>");
    }
    text += "</tr>\n";
    for (record, cells) in rows {
        let class = chart::class(record.role);
        text += &format!(
            "<tr class=\"{class}\"><td>{}</td>",
            escape(&record.contender)
        );
        for cell in cells {
            text += &format!("<td class=\"number\">{}</td>", escape(&cell));
        }
        text += "</tr>\n";
    }
    text + "</table>\n"
}

/// A chart, and its numbers for those who ask for them.
fn article(title: &str, chart: &str, numbers: &str) -> String {
    format!(
        "<article>\n<h3>{}</h3>\n{chart}<details><summary>numbers</summary>\n\
         <div class=\"scroll\">{numbers}</div></details>\n</article>\n",
        escape(title)
    )
}

/// As text between tags.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Role;
    use crate::machine::Machine;
    use crate::record::SCHEMA;
    use crate::statistics::Summary;
    use crate::workload::Unit;

    fn empty() -> Report {
        Report {
            schema: SCHEMA,
            machine: Machine::default(),
            rounds: 1,
            workers: 2,
            quick: false,
            seconds: 1.0,
            targets: Vec::new(),
            notes: Vec::new(),
            records: Vec::new(),
        }
    }

    fn record(workload: &str, size: Option<u64>) -> Record {
        Record {
            workload: workload.to_owned(),
            size,
            contender: "ForkPool".to_owned(),
            role: Role::Ours,
            unit: Unit::Seconds,
            n: 1,
            samples: vec![1e-6],
            summary: Summary::of(&[1e-6]).expect("there is a sample"),
        }
    }

    fn verdict(row: &str, met: bool) -> Verdict {
        Verdict {
            row: row.to_owned(),
            contender: "ForkPool".to_owned(),
            wanted: "≤ 1 µs".to_owned(),
            measured: "2 µs".to_owned(),
            number: 2e-6,
            met,
        }
    }

    fn full() -> Report {
        let points = [1_000, 10_000].map(|size| record("growth-tasks", Some(size)));
        Report {
            targets: vec![verdict("too slow", false), verdict("fast", true)],
            notes: vec!["loky: not found".to_owned()],
            records: [[record("apply", None)].as_slice(), &points].concat(),
            ..empty()
        }
    }

    /// Where these stand in the page, each after the one before.
    #[track_caller]
    fn assert_order(page: &str, marks: &[&str]) {
        let mut rest = page;
        for mark in marks {
            let at = rest.find(mark);
            rest = &rest[at.unwrap_or_else(|| panic!("no {mark} there in {page}"))..];
        }
    }

    #[test]
    fn missed_targets_come_after_results_and_reached_ones() {
        let page = page(&full());
        let headings = [
            "<h2>Results<",
            "class=\"bars\"",
            "<h2>Growth<",
            "class=\"lines\"",
            "<h2>Targets: 1 of 2 reached<",
            "<h3>Reached<",
            "<td>fast<",
            "<h3>Missed<",
            "<td>too slow<",
            "<h2>Not measured<",
            "loky",
        ];
        assert_order(&page, &headings);
        assert!(page.find("Missed") > page.find("<h2>Targets"), "{page}");
    }

    #[test]
    fn empty_sections_have_no_heading_and_no_link() {
        let parts = ["results", "growth", "targets", "unmeasured"];
        let named = |report: &Report| {
            let page = page(report);
            let named = parts.map(|id| {
                let (link, section) = (format!("\"#{id}\""), format!("<section id=\"{id}\">"));
                assert_eq!(
                    page.contains(&link),
                    page.contains(&section),
                    "{id} in {page}"
                );
                page.contains(&section)
            });
            assert!(!page.contains("<table>\n</table>"), "{page}");
            (named, page)
        };
        assert_eq!(named(&full()).0, [true; 4]);
        let (sections, page) = named(&empty());
        assert_eq!(sections, [false; 4]);
        for tag in ["<h2", "<h3", "<nav", "<table", "<ul", "class=\"columns\""] {
            assert!(!page.contains(tag), "{tag} in {page}");
        }
        let (sections, page) = named(&Report {
            notes: Vec::new(),
            targets: vec![verdict("fast", true)],
            ..full()
        });
        assert_eq!(sections, [true, true, true, false]);
        assert!(page.contains("<h3>Reached<") && !page.contains("<h3>Missed<"));
    }

    #[test]
    fn the_warning_of_a_busy_machine_comes_first() {
        let mut report = full();
        assert!(!page(&report).contains("class=\"warning\""));
        assert!(page(&report).contains("number missed"));
        report.machine.load_before = 3.25;
        let warning = report.machine.warning().expect("it is busy");
        let page = page(&report);
        assert_order(
            &page,
            &["class=\"warning\"", warning, "3.25", "<p>", "<nav", "<h2"],
        );
        assert!(!page.contains("number missed"));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&full());
        for outside in ["http", "url(", "@import", "src=", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
    }

    #[test]
    fn what_looks_like_a_tag_is_text() {
        assert_eq!(escape("Vec<u8> & co"), "Vec&lt;u8&gt; &amp; co");
    }
}
