//! Charts that fit the width of the page: their text is the page's own and never scaled, and lines
//! and bars stand at percentages.

use super::axis::ValueAxis;
use super::html::escape;
use super::table::{names, sizes};
use crate::contender::Role;
use crate::curve::Curve;
use crate::format::{size, value};
use crate::record::Record;
use crate::workload::Unit;

/// The colours of those that have one of their own; all can be told apart on dark and on light.
const NAMED: &[(&str, &str)] = &[
    ("ForkPool", "#2577e3"),
    ("SpawnPool", "#17a27c"),
    ("SerialPool", "#78aad2"),
    ("procspawn", "#db4437"),
    ("mp.Pool fork", "#f08c1e"),
    ("mp.Pool spawn", "#c8a028"),
    ("ProcessPoolExecutor", "#ba55be"),
    ("rayon", "#826edc"),
    ("sequential", "#96826e"),
    ("floor: raw forks", "#6e6e6e"),
    ("floor: raw re-execs", "#a0a0a0"),
    ("floor: one re-exec, wait", "#a0a0a0"),
];

/// So many letters have room in a line of labels on a narrow page, distances included.
const NARROW_LETTERS: usize = 48;

/// Whose bar or line has which colour.
fn color(name: &str, role: Role) -> &'static str {
    let named = NAMED.iter().find(|row| row.0 == name);
    named.map_or_else(
        || match role {
            Role::Floor => "#787878",
            _ => "#d6785a",
        },
        |row| row.1,
    )
}

/// Its name in the style sheet.
pub(super) fn class(role: Role) -> &'static str {
    if role == Role::Ours { "ours" } else { "other" }
}

/// A bar for each of them, on a logarithmic axis where they are far apart. Names and values have
/// places of their own, so that no bar is in their way, however long.
#[must_use]
pub fn bars(rows: &[&Record]) -> String {
    let Some(unit) = rows.first().map(|row| row.unit) else {
        return String::new();
    };
    let axis = bars_axis(unit, rows);
    let mut text = "<div class=\"bars\">\n".to_owned();
    if let Some(axis) = &axis {
        text += "<div class=\"ticks\">";
        for tick in axis.ticks() {
            let (place, shown) = (axis.place(tick), value(unit, tick));
            text += &format!("<span style=\"left:{place:.2}%\"><em>{shown}</em></span>");
        }
        text += "</div>\n";
    }
    for row in rows {
        let summary = &row.summary;
        let place = |x: f64| axis.as_ref().map_or(0.0, |axis| axis.place(x));
        let (lower, upper) = (place(summary.lower), place(summary.upper));
        text += &format!(
            "<div class=\"bar {}\"><span class=\"name\">{}</span>\
             <span class=\"value\">{}</span><span class=\"track\">\
             <i style=\"width:{:.2}%;background:{}\"></i>\
             <b style=\"left:{lower:.2}%;width:{:.2}%\"></b></span></div>\n",
            class(row.role),
            escape(&row.contender),
            value(unit, summary.median),
            place(summary.median),
            color(&row.contender, row.role),
            upper - lower,
        );
    }
    text + "</div>\n"
}

/// `None`: all are 0.
fn bars_axis(unit: Unit, rows: &[&Record]) -> Option<ValueAxis> {
    let (smallest, largest) = range(rows)?;
    // Whiskers are inside, but for those that would make all bars small.
    let whiskers = rows.iter().map(|row| row.summary.upper);
    let last = whiskers.fold(largest, f64::max).min(largest * 2.0);
    Some(if largest / smallest > 20.0 {
        ValueAxis::log(unit, smallest / 2.0, last * 1.05)
    } else {
        ValueAxis::linear(unit, last * 1.05)
    })
}

/// The smallest and the largest median above 0.
fn range(records: &[&Record]) -> Option<(f64, f64)> {
    let medians = records.iter().map(|record| record.summary.median);
    medians
        .filter(|&median| median > 0.0)
        .fold(None, |range, x| {
            let (smallest, largest) = range.unwrap_or((x, x));
            Some((x.min(smallest), x.max(largest)))
        })
}

/// A line for each contender of one curve, and whose it is. The sizes stand at equal distances,
/// whatever they are. Of one size there are bars.
#[must_use]
pub fn lines(curve: &Curve, points: &[&Record]) -> String {
    let sizes = sizes(points);
    let (2.., Some((smallest, largest))) = (sizes.len(), range(points)) else {
        return bars(points);
    };
    let axis = ValueAxis::log_around(curve.unit, smallest, largest);
    let last = sizes.len() - 1;
    let across = |at: usize| 100.0 * at as f64 / last as f64;
    let mut text = "<div class=\"lines\">".to_owned();
    for tick in axis.ticks() {
        let (place, shown) = (axis.place(tick), value(curve.unit, tick));
        text += &format!("<span class=\"y\" style=\"bottom:{place:.2}%\"><em>{shown}</em></span>");
    }
    let labels = sizes
        .iter()
        .map(|&shown| size(curve.axis.is_bytes(), shown));
    let labels: Vec<String> = labels.collect();
    let longest = labels.iter().map(String::len).max().unwrap_or_default();
    let every = (labels.len() * longest).div_ceil(NARROW_LETTERS);
    for (at, shown) in labels.iter().enumerate() {
        let class = if (last - at).is_multiple_of(every) {
            "x"
        } else {
            "x wide"
        };
        let place = across(at);
        text +=
            &format!("<span class=\"{class}\" style=\"left:{place:.2}%\"><em>{shown}</em></span>");
    }
    text += "\n<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\">\n";
    let mut legend = String::new();
    for name in names(points) {
        let line = points.iter().filter(|point| point.contender == name);
        let mut line: Vec<&&Record> = line.collect();
        line.sort_by_key(|point| point.size);
        let role = line.first().map_or(Role::Ours, |point| point.role);
        let (color, name) = (color(name, role), escape(name));
        let class = class(role);
        let mut path = String::new();
        let mut dots = String::new();
        for point in line {
            let at = sizes.iter().position(|&size| Some(size) == point.size);
            let x = across(at.unwrap_or_default());
            let y = 100.0 - axis.place(point.summary.median);
            path += &format!("{}{x:.2} {y:.2}", if path.is_empty() { "M" } else { "L" });
            // A line of no length with round ends: the stretched picture would distort a circle.
            dots += &format!("M{x:.2} {y:.2}h0");
        }
        text += &format!(
            "<g stroke=\"{color}\" class=\"{class}\"><title>{name}</title>\
             <path d=\"{path}\"/><path class=\"dots\" d=\"{dots}\"/></g>\n"
        );
        legend +=
            &format!("<span class=\"{class}\"><i style=\"background:{color}\"></i>{name}</span> ");
    }
    format!(
        "{text}</svg></div>\n<p class=\"size\">{}</p>\n<p class=\"legend\">{legend}</p>\n",
        curve.axis.label()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Axis, CURVES};
    use crate::statistics::Summary;

    fn record(contender: &str, size: Option<u64>, median: f64) -> Record {
        Record {
            workload: "x".to_owned(),
            size,
            contender: contender.to_owned(),
            role: Role::Ours,
            unit: Unit::Seconds,
            n: 1,
            samples: vec![median],
            summary: Summary::of(&[median]).expect("there is a sample"),
        }
    }

    /// The text behind each of these marks, up to the next tag, quote or percent sign.
    fn after<'a>(html: &'a str, mark: &str) -> Vec<&'a str> {
        let rests = html.split(mark).skip(1);
        rests
            .filter_map(|rest| rest.split(['<', '"', '%']).next())
            .collect()
    }

    #[test]
    fn every_bar_has_a_name_and_a_value() {
        let medians = [
            ("ForkPool", 1e-6),
            ("nobody", 0.0),
            ("loky", 1e-3),
            ("a < b", 2e-3),
        ];
        let rows = medians.map(|(name, median)| record(name, None, median));
        let html = bars(&rows.iter().collect::<Vec<_>>());
        let names = ["ForkPool", "nobody", "loky", "a &lt; b"];
        assert_eq!(after(&html, "class=\"name\">"), names);
        let values = ["1 µs", "0 ns", "1 ms", "2 ms"];
        assert_eq!(after(&html, "class=\"value\">"), values);
        assert_eq!(html.matches("<i ").count(), 4, "{html}");
    }

    /// One that is far above the others is cut, and takes no room from them.
    #[test]
    fn bars_and_whiskers_stay_inside() {
        let mut row = record("ForkPool", None, 700.0 * 1024.0);
        (row.unit, row.summary.upper) = (Unit::Bytes, 1e9);
        let html = bars(&[&row]);
        assert_eq!(after(&html, "<em>"), ["0 B", "256 KiB", "512 KiB", "1 MiB"]);
        let number = |text: &str| text.parse::<f64>().expect("it is a number");
        let (width, left) = (
            after(&html, "<i style=\"width:"),
            after(&html, "<b style=\"left:"),
        );
        assert_eq!(width, ["47.62"]);
        let whisker = after(&html, ";width:");
        assert!(
            (number(left[0]) + number(whisker[0]) - 100.0).abs() < 0.1,
            "{html}"
        );
    }

    #[test]
    fn bars_of_nothing_have_labels_and_no_axis() {
        let html = bars(&[&record("ForkPool", None, 0.0)]);
        assert!(html.contains("ForkPool") && html.contains("0 ns"), "{html}");
        assert!(!html.contains("ticks") && !html.contains("NaN"), "{html}");
        assert_eq!(bars(&[]), "");
    }

    fn over_bytes(points: &[Record]) -> String {
        let curve = CURVES.iter().find(|curve| curve.axis == Axis::Bytes);
        let curve = curve.expect("there is a curve over bytes");
        lines(curve, &points.iter().collect::<Vec<_>>())
    }

    #[test]
    fn lines_have_a_label_for_each_size_and_a_name() {
        let sizes = [0, 1 << 10, 1 << 16, 1 << 20];
        let html = over_bytes(&sizes.map(|size| record("ForkPool", Some(size), 1e-6)));
        let labels = after(&html, "<em>");
        assert!(
            labels.ends_with(&["0 B", "1 KiB", "64 KiB", "1 MiB"]),
            "{labels:?}"
        );
        assert!(html.contains("</i>ForkPool</span>"), "{html}");
        assert!(!html.contains("x wide"), "{html}");
    }

    #[test]
    fn a_narrow_page_has_room_for_the_labels_of_many_sizes() {
        let shown = |sizes: &[u64]| {
            let points = sizes
                .iter()
                .map(|&size| record("ForkPool", Some(size), 1e-6));
            let html = over_bytes(&points.collect::<Vec<_>>());
            assert_eq!(html.matches("class=\"x").count(), sizes.len());
            html.matches("class=\"x\"").count()
        };
        assert_eq!(shown(&[1, 10, 100, 1000, 10_000]), 5);
        assert_eq!(
            shown(&[1 << 8, 1 << 10, 1 << 18, 1 << 20, 1 << 28, 1 << 30, 1 << 38]),
            4
        );
    }

    #[test]
    fn one_size_has_bars() {
        let html = over_bytes(&[record("ForkPool", Some(64), 1e-6)]);
        assert!(html.starts_with("<div class=\"bars\">"), "{html}");
        assert_eq!(over_bytes(&[]), "");
    }
}
