//! Charts as SVG that takes the colour of the page's text, so that it is readable on dark and on
//! light.

use anyhow::{Result, anyhow};
use plotters::chart::{ChartBuilder, LabelAreaPosition};
use plotters::coord::combinators::IntoLogRange;
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

use crate::contender::Role;
use crate::curve::{Axis, Curve};
use crate::format::{size, value};
use crate::record::Record;
use crate::workload::Unit;

/// Stands for the colour of the page's text.
const INK: RGBColor = RGBColor(1, 2, 3);
const WIDTH: u32 = 860;

/// The colours of those that have one of their own; all can be told apart on dark and on light.
const NAMED: &[(&str, RGBColor)] = &[
    ("ForkPool", RGBColor(37, 119, 227)),
    ("SpawnPool", RGBColor(23, 162, 124)),
    ("SerialPool", RGBColor(120, 170, 210)),
    ("procspawn", RGBColor(219, 68, 55)),
    ("mp.Pool fork", RGBColor(240, 140, 30)),
    ("mp.Pool spawn", RGBColor(200, 160, 40)),
    ("ProcessPoolExecutor", RGBColor(186, 85, 190)),
    ("rayon", RGBColor(130, 110, 220)),
    ("sequential", RGBColor(150, 130, 110)),
    ("floor: raw forks", RGBColor(110, 110, 110)),
    ("floor: raw re-execs", RGBColor(160, 160, 160)),
    ("floor: one re-exec, wait", RGBColor(160, 160, 160)),
];

/// Whose bar or line has which colour.
#[must_use]
pub fn color(name: &str, role: Role) -> RGBColor {
    let named = NAMED.iter().find(|row| row.0 == name);
    named.map_or_else(
        || match role {
            Role::Floor => RGBColor(120, 120, 120),
            _ => RGBColor(214, 120, 90),
        },
        |row| row.1,
    )
}

/// A bar for each contender of one workload, on a logarithmic axis where they are far apart.
///
/// # Errors
/// When the chart cannot be drawn.
pub fn bars(rows: &[&Record]) -> Result<String> {
    let height = 24 * rows.len() as u32 + 44;
    let medians = || rows.iter().map(|row| row.summary.median);
    let largest = medians().fold(0.0, f64::max);
    let smallest = medians()
        .filter(|&median| median > 0.0)
        .fold(largest, f64::min);
    if largest <= 0.0 {
        return Ok(String::new());
    }
    let unit = rows.first().map_or(Unit::Seconds, |row| row.unit);
    // The axis has round numbers of this.
    let step = match unit {
        Unit::Bytes => binary_unit(largest),
        Unit::Seconds | Unit::Count => 1.0,
    };
    let show = |x: &f64| value(unit, *x * step);
    let (largest, smallest) = (largest / step, smallest / step);
    // Whiskers are inside, but for those that would make all bars small.
    let whiskers = rows.iter().map(|row| row.summary.upper / step);
    let last = whiskers.fold(largest, f64::max).min(largest * 2.0);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut builder = ChartBuilder::on(&root);
        builder
            .margin(6)
            .margin_right(90)
            .set_label_area_size(LabelAreaPosition::Left, 270)
            .set_label_area_size(LabelAreaPosition::Bottom, 26);
        let count = rows.len() as f64;
        let is_wide = largest / smallest > 20.0;
        let draw = |place: &dyn Fn(f64, f64) -> (i32, i32), least: f64| -> Result<()> {
            for (row, record) in rows.iter().enumerate() {
                let top = count - row as f64;
                let median = record.summary.median / step;
                let fill = color(&record.contender, record.role);
                let end = place(median.max(least), top - 0.5);
                let corners = [
                    place(least, top - 0.16),
                    place(median.max(least), top - 0.84),
                ];
                root.draw(&Rectangle::new(corners, fill.filled()))
                    .map_err(broken)?;
                // From quartile to quartile.
                let (lower, upper) = (record.summary.lower, record.summary.upper);
                let inside = |x: f64| (x / step).max(least).min(last);
                let whisker = [lower, upper].map(|x| place(inside(x), top - 0.5));
                let line = PathElement::new(whisker, INK.mix(0.8).stroke_width(1));
                root.draw(&line).map_err(broken)?;
                let after = whisker[1].0.max(end.0) + 6;
                let text = label(16, HPos::Left);
                root.draw(&Text::new(show(&median), (after, end.1), text))
                    .map_err(broken)?;
                let name = record.contender.clone();
                let before = (place(least, top).0 - 8, end.1);
                root.draw(&Text::new(name, before, label(16, HPos::Right)))
                    .map_err(broken)?;
            }
            Ok(())
        };
        if is_wide {
            let least = smallest / 2.0;
            let range = (least..last * 1.3).log_scale();
            let mut chart = builder
                .build_cartesian_2d(range, 0.0..count)
                .map_err(broken)?;
            mesh(chart.configure_mesh().disable_y_mesh(), &show).map_err(broken)?;
            draw(&|x, y| chart.backend_coord(&(x, y)), least)?;
        } else {
            let range = 0.0..last * 1.1;
            let mut chart = builder
                .build_cartesian_2d(range, 0.0..count)
                .map_err(broken)?;
            mesh(chart.configure_mesh().disable_y_mesh(), &show).map_err(broken)?;
            draw(&|x, y| chart.backend_coord(&(x, y)), 0.0)?;
        }
        root.present().map_err(broken)?;
    }
    Ok(in_ink(svg))
}

/// The largest of bytes, KiB, MiB and GiB of which this is one or more.
fn binary_unit(bytes: f64) -> f64 {
    let units = [1 << 30, 1 << 20, 1 << 10].map(f64::from);
    units.into_iter().find(|&unit| bytes >= unit).unwrap_or(1.0)
}

/// A line for each contender of one curve. The sizes stand at equal distances, whatever they are.
///
/// # Errors
/// When the chart cannot be drawn.
pub fn lines(curve: &Curve, points: &[&Record]) -> Result<String> {
    let mut sizes: Vec<u64> = points.iter().filter_map(|point| point.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let medians = || points.iter().map(|point| point.summary.median);
    let largest = medians().fold(0.0, f64::max);
    let smallest = medians()
        .filter(|&median| median > 0.0)
        .fold(largest, f64::min);
    if sizes.len() < 2 || largest <= 0.0 {
        return Ok(String::new());
    }
    let bytes = matches!(curve.axis, Axis::Bytes | Axis::Resident);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 400)).into_drawing_area();
        let across = 0..sizes.len() as i32 - 1;
        let up = (smallest / 1.6..largest * 1.6).log_scale();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .margin_right(40)
            .set_label_area_size(LabelAreaPosition::Left, 70)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(across, up)
            .map_err(broken)?;
        let show_size = |place: &i32| {
            let at = usize::try_from(*place).ok();
            at.and_then(|at| sizes.get(at))
                .map_or_else(String::new, |&at| size(bytes, at))
        };
        chart
            .configure_mesh()
            .x_labels(sizes.len())
            .x_label_formatter(&show_size)
            .y_label_formatter(&|y| value(curve.unit, *y))
            .x_desc(curve.axis.label())
            .axis_desc_style(label(16, HPos::Center))
            .label_style(label(15, HPos::Center))
            .axis_style(INK.mix(0.5))
            .bold_line_style(INK.mix(0.16))
            .light_line_style(INK.mix(0.05))
            .draw()
            .map_err(broken)?;
        for name in super::table::names(points) {
            let mut line: Vec<&&Record> = points
                .iter()
                .filter(|point| point.contender == name)
                .collect();
            line.sort_by_key(|point| point.size);
            let place = |point: &Record| {
                let at = sizes.iter().position(|&size| Some(size) == point.size);
                (at.unwrap_or_default() as i32, point.summary.median)
            };
            let role = line.first().map_or(Role::Ours, |point| point.role);
            let stroke = ShapeStyle {
                color: color(name, role).to_rgba(),
                filled: true,
                stroke_width: if role == Role::Ours { 3 } else { 2 },
            };
            let places = || line.iter().map(|point| place(point));
            chart
                .draw_series(LineSeries::new(places(), stroke))
                .map_err(broken)?;
            chart
                .draw_series(places().map(|place| Circle::new(place, 3, stroke)))
                .map_err(broken)?;
        }
        root.present().map_err(broken)?;
    }
    Ok(in_ink(svg))
}

fn mesh<'a, 'b, X, Y, DB>(
    style: &mut plotters::chart::MeshStyle<'a, 'b, X, Y, DB>,
    show: &'b dyn Fn(&f64) -> String,
) -> std::result::Result<(), DrawingAreaErrorKind<DB::ErrorType>>
where
    X: plotters::coord::ranged1d::Ranged<ValueType = f64>
        + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: plotters::coord::ranged1d::Ranged<ValueType = f64>
        + plotters::coord::ranged1d::ValueFormatter<f64>,
    DB: plotters::backend::DrawingBackend,
{
    style
        .disable_y_axis()
        .y_labels(0)
        .x_labels(8)
        .x_label_formatter(show)
        .label_style(label(15, HPos::Center))
        .axis_style(INK.mix(0.5))
        .bold_line_style(INK.mix(0.16))
        .light_line_style(INK.mix(0.05))
        .draw()
}

/// plotters counts the height of a line; the letters are four fifths of it.
fn label(size: i32, across: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", size).into_font().color(&INK);
    style.pos(Pos::new(across, VPos::Center))
}

/// Takes the page's text colour, and the page's width.
fn in_ink(svg: String) -> String {
    let svg = svg.replace("#010203", "currentColor");
    let (head, rest) = svg.split_once('>').unwrap_or((&svg, ""));
    // The first tag has the size in pixels; its view box stays.
    let view = head.find("viewBox").map_or("", |at| &head[at..]);
    format!("<svg {view}>{rest}")
}

fn broken<E: std::error::Error>(error: E) -> anyhow::Error {
    anyhow!("chart: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::CURVES;
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

    #[test]
    fn bars_name_everybody_and_carry_values() {
        let rows = [record("ForkPool", None, 1e-6), record("loky", None, 1e-3)];
        let svg = bars(&rows.iter().collect::<Vec<_>>()).expect("it can be drawn");
        assert!(svg.starts_with("<svg viewBox="), "{svg}");
        for text in ["ForkPool", "loky", "1 µs", "1 ms", "currentColor"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        assert!(!svg.contains("#010203"));
    }

    /// The bar's own label and its whisker are in the picture, and the axis counts in KiB.
    #[test]
    fn bars_of_bytes_have_round_numbers_and_stay_inside() {
        let mut row = record("ForkPool", None, 700.0 * 1024.0);
        (row.unit, row.summary.upper) = (Unit::Bytes, 1e9);
        let svg = bars(&[&row]).expect("it can be drawn");
        for text in ["700 KiB", "200 KiB", "400 KiB"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
        let across = svg
            .split("x=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let across = across.filter_map(|x| x.parse::<f64>().ok());
        assert!(across.fold(0.0, f64::max) < f64::from(WIDTH - 40), "{svg}");
    }

    #[test]
    fn lines_have_a_label_for_each_size() {
        let points = [
            record("ForkPool", Some(0), 1e-6),
            record("ForkPool", Some(1 << 20), 1e-3),
        ];
        let curve = CURVES.iter().find(|curve| curve.axis == Axis::Bytes);
        let curve = curve.expect("there is a curve over bytes");
        let svg = lines(curve, &points.iter().collect::<Vec<_>>()).expect("it can be drawn");
        assert!(svg.contains("1 MiB") && svg.contains("0 B"), "{svg}");
    }

    #[test]
    fn nothing_measured_is_nothing_drawn() {
        let none = record("ForkPool", None, 0.0);
        assert_eq!(bars(&[&none]).expect("there is nothing to draw"), "");
        assert_eq!(bars(&[]).expect("there is nothing to draw"), "");
    }
}
