//! The picture as SVG.

use super::color::FAILED;
use super::lanes::{Bar, Column, Lane, Life, Picture, WIDTH};
use super::svg::{Svg, short};

/// Room at the left, for the names of lanes.
const LEFT: f64 = 120.0;
const RIGHT: f64 = 24.0;
/// Where the curve of utilisation begins, and how high it is.
const CURVE: f64 = 64.0;
const CURVE_HEIGHT: f64 = 56.0;
/// Where the lanes begin.
const LANES: f64 = CURVE + CURVE_HEIGHT + 26.0;
const LANE: f64 = 34.0;
const GAP: f64 = 8.0;

const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#24292f}\
.dim{fill:#6e7781;font-size:11px}.title{font-size:16px;font-weight:600}.in{fill:#fff;font-size:10px}\
.name{fill:#6e7781;font-size:9px}.grid{stroke:#d8dee4;stroke-width:1}\
.axis{stroke:#8c959f;stroke-width:1}rect:hover{opacity:.75}";

/// Draws it.
pub(crate) fn draw(picture: &Picture, title: &str) -> String {
    let mut svg = Svg::new();
    let lanes = picture.lanes.len() as f64;
    let bottom = LANES + lanes * (LANE + GAP);
    let width = LEFT + WIDTH as f64 + RIGHT;
    let rows = picture.functions.len().clamp(1, MAX_ROWS + 1) as f64;
    let height = bottom + 48.0 + (rows + 1.0) * 18.0 + 4.0;
    svg.rect((0.0, 0.0), (width, height), "fill=\"#fff\"", "");
    heading(&mut svg, picture, title);
    axis(&mut svg, picture.length, bottom);
    curve(&mut svg, picture);
    for (number, lane) in picture.lanes.iter().enumerate() {
        let top = LANES + number as f64 * (LANE + GAP);
        draw_lane(&mut svg, picture, lane, top);
    }
    legend(&mut svg, picture, bottom + 48.0);
    svg.finish(width, height, STYLE)
}

fn heading(svg: &mut Svg, picture: &Picture, title: &str) {
    svg.text((LEFT, 26.0), "class=\"title\"", title);
    let mut facts = vec![
        time(picture.length),
        format!("{} items", grouped(picture.items)),
        format!("{} workers at a time", picture.lanes.len()),
        format!("{:.0} % busy", 100.0 * picture.utilisation),
    ];
    for (error, count) in &picture.failures {
        facts.push(format!("{} {error}", grouped(*count)));
    }
    if picture.unborn > 0 {
        facts.push(format!("{} never begun", grouped(picture.unborn)));
    }
    if picture.dropped > 0 {
        facts.push(format!("{} events missing", grouped(picture.dropped)));
    }
    svg.text((LEFT, 45.0), "class=\"dim\"", &facts.join(" · "));
}

/// Lines at round times, through everything.
fn axis(svg: &mut Svg, length: f64, bottom: f64) {
    let step = round_step(length / 9.0);
    let mut at = 0.0;
    while at <= length {
        let x = LEFT + at / length * WIDTH as f64;
        svg.line((x, CURVE), (x, bottom), "class=\"grid\"");
        // Not over the edge.
        if x < LEFT + WIDTH as f64 - 12.0 || at == 0.0 {
            let text = if at == 0.0 { "0".to_owned() } else { time(at) };
            svg.text(
                (x, bottom + 16.0),
                "class=\"dim\" text-anchor=\"middle\"",
                &text,
            );
        }
        at += step;
    }
    let right = LEFT + WIDTH as f64;
    svg.line((LEFT, bottom), (right, bottom), "class=\"axis\"");
}

/// Which share of the workers was busy.
fn curve(svg: &mut Svg, picture: &Picture) {
    let base = CURVE + CURVE_HEIGHT;
    svg.text((LEFT - 10.0, CURVE + 14.0), "text-anchor=\"end\"", "busy");
    for (share, name) in [(1.0, "100 %"), (0.5, "50 %"), (0.0, "0")] {
        let y = base - share * CURVE_HEIGHT;
        svg.line((LEFT, y), (LEFT + WIDTH as f64, y), "class=\"grid\"");
        if share < 1.0 {
            svg.text(
                (LEFT - 10.0, y + 4.0),
                "class=\"dim\" text-anchor=\"end\"",
                name,
            );
        }
    }
    let mut path = format!("M{} {}", short(LEFT), short(base));
    let mut last = f64::NAN;
    for (column, busy) in picture.busy.iter().enumerate() {
        let y = base - busy * CURVE_HEIGHT;
        if (y - last).abs() > 0.05 || last.is_nan() {
            path += &format!("H{}V{}", short(LEFT + column as f64), short(y));
            last = y;
        }
    }
    path += &format!("H{}V{}Z", short(LEFT + WIDTH as f64), short(base));
    svg.raw(&format!(
        "<path d=\"{path}\" fill=\"#2f7ed8\" fill-opacity=\".25\" stroke=\"#2f7ed8\" stroke-width=\"1\"/>\n"
    ));
}

fn draw_lane(svg: &mut Svg, picture: &Picture, lane: &Lane, top: f64) {
    let name = format!("position {}", lane.position + 1);
    svg.text((LEFT - 10.0, top + 16.0), "text-anchor=\"end\"", &name);
    let mut free = 0.0_f64;
    for (number, life) in lane.lives.iter().enumerate() {
        // Neighbours have two shades. A successor may be up before its predecessor is
        // gone.
        let from = life.from.max(free);
        free = life.to;
        let fill = if number % 2 == 0 {
            "#f0f3f6"
        } else {
            "#e2e8ef"
        };
        let size = ((life.to - from).max(0.5), LANE);
        let about = about_life(life);
        svg.rect(
            (LEFT + from, top),
            size,
            &format!("fill=\"{fill}\""),
            &about,
        );
    }
    for column in &lane.columns {
        draw_column(svg, picture, column, top);
    }
    for bar in &lane.bars {
        draw_bar(svg, picture, bar, top);
    }
    for life in &lane.lives {
        draw_ends(svg, life, top);
    }
}

fn about_life(life: &Life) -> String {
    let end = life
        .reason
        .as_ref()
        .map_or(String::new(), |reason| format!(", ended: {reason}"));
    let items = grouped(life.items);
    format!(
        "PoolWorker-{} (pid {}): {items} items{end}",
        life.worker, life.pid
    )
}

/// Where a worker ended and why, and whose time began.
fn draw_ends(svg: &mut Svg, life: &Life, top: f64) {
    if life.to - life.from > 78.0 {
        let at = (LEFT + life.from + 3.0, top + LANE - 2.5);
        svg.text(at, "class=\"name\"", &format!("PoolWorker-{}", life.worker));
    }
    let Some(reason) = &life.reason else {
        return;
    };
    let color = if in_order(reason) { WENT } else { FAILED };
    let x = LEFT + life.to;
    let stroke = format!("stroke=\"{color}\" stroke-width=\"1.5\"");
    svg.line((x, top - 3.0), (x, top + LANE), &stroke);
    flag(svg, x, top, color, &about_life(life));
}

/// The colour of the end of a worker that had done what it should.
const WENT: &str = "#57606a";

/// Whether a worker that ended for this reason was retired.
fn in_order(reason: &str) -> bool {
    matches!(
        reason,
        "MaxTasks" | "MaxMemory" | "MaxAge" | "Idle" | "Resized" | "Closed"
    )
}

/// A triangle that points to a place.
fn flag(svg: &mut Svg, x: f64, y: f64, color: &str, about: &str) {
    let (left, right, top) = (short(x - 4.0), short(x + 4.0), short(y - 6.0));
    let (x, y) = (short(x), short(y));
    svg.raw(&format!(
        "<path d=\"M{left} {top}H{right}L{x} {y}Z\" fill=\"{color}\"><title>{about}</title></path>\n"
    ));
}

/// The height of bars, which leaves room for the worker's name below.
const BAR: f64 = LANE - 12.0;

fn draw_bar(svg: &mut Svg, picture: &Picture, bar: &Bar, top: f64) {
    let item = &bar.item;
    let function = &picture.functions[bar.function];
    let mut about = format!(
        "{}, item {}: {}",
        item.function,
        item.index,
        time(item.end - item.start)
    );
    if let Some(queued) = item.queued {
        about += &format!(", queued {}", time(queued));
    }
    if let Some(error) = &item.error {
        about += &format!(", {error}");
    }
    // A hair's breadth between neighbours.
    let width = (bar.to - bar.from - 0.4).max(0.8);
    let fill = format!("fill=\"{}\" rx=\"1.5\"", function.color);
    svg.rect((LEFT + bar.from, top + 1.0), (width, BAR), &fill, &about);
    if item.error.is_some() {
        // Its end is what failed.
        let mark = width.min(5.0);
        let at = (LEFT + bar.from + width - mark, top + 1.0);
        svg.rect(at, (mark, BAR), &format!("fill=\"{FAILED}\""), &about);
    }
    let name = last_part(&function.name);
    if width > 6.5 * name.len() as f64 + 12.0 {
        let at = (LEFT + bar.from + 5.0, top + 15.5);
        svg.text(at, "class=\"in\" pointer-events=\"none\"", name);
    }
}

fn draw_column(svg: &mut Svg, picture: &Picture, column: &Column, top: f64) {
    let function = &picture.functions[column.function];
    let about = format!(
        "{} items, most of {}, {:.0} % busy",
        grouped(column.items),
        last_part(&function.name),
        100.0 * column.share
    );
    let attributes = format!(
        "fill=\"{}\" fill-opacity=\"{:.1}\"",
        function.color, column.share
    );
    let at = (LEFT + column.at as f64, top + 1.0);
    svg.rect(at, (column.width as f64, BAR), &attributes, &about);
    if column.failed > 0 {
        let about = format!("{} of {} failed", column.failed, column.items);
        let at = (LEFT + column.at as f64, top + BAR + 2.5);
        let size = ((column.width as f64).max(2.5), 4.5);
        svg.rect(at, size, &format!("fill=\"{FAILED}\""), &about);
    }
}

/// The most functions that the legend has a row for each.
const MAX_ROWS: usize = 7;

fn legend(svg: &mut Svg, picture: &Picture, top: f64) {
    for (row, function) in picture.functions.iter().take(MAX_ROWS).enumerate() {
        let y = top + row as f64 * 18.0;
        let fill = format!("fill=\"{}\" rx=\"2\"", function.color);
        svg.rect((LEFT, y - 10.0), (12.0, 12.0), &fill, "");
        svg.text((LEFT + 20.0, y), "", &function.name);
        let mean = time(function.total / function.items.max(1) as f64);
        let facts = format!("{} × {mean}", grouped(function.items));
        let at = (LEFT + WIDTH as f64, y);
        svg.text(at, "class=\"dim\" text-anchor=\"end\"", &facts);
    }
    let mut y = top + picture.functions.len().min(MAX_ROWS) as f64 * 18.0;
    let more = picture.functions.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        let text = format!("and {more} functions more");
        svg.text((LEFT + 20.0, y), "class=\"dim\"", &text);
        y += 18.0;
    }
    signs(svg, picture, y);
}

/// What the other signs mean, as far as there are any.
fn signs(svg: &mut Svg, picture: &Picture, y: f64) {
    let mut x = LEFT;
    let reasons = || picture.lanes.iter().flat_map(|lane| &lane.lives);
    let mut reasons = reasons().filter_map(|life| life.reason.as_deref());
    let (went, died): (Vec<&str>, Vec<&str>) = reasons.by_ref().partition(|it| in_order(it));
    if !picture.failures.is_empty() {
        let fill = format!("fill=\"{FAILED}\"");
        svg.rect((x + 3.0, y - 10.0), (5.0, 12.0), &fill, "");
        svg.text((x + 20.0, y), "class=\"dim\"", "an item failed");
        x += 120.0;
    }
    for (lives, color, text) in [
        (went, WENT, "a worker went in good order"),
        (died, FAILED, "a worker died or was killed"),
    ] {
        if !lives.is_empty() {
            flag(svg, x + 6.0, y - 1.0, color, "");
            svg.text((x + 20.0, y), "class=\"dim\"", text);
            x += 190.0;
        }
    }
}

/// The function's own name, of its path. A closure has that of the function around it.
fn last_part(path: &str) -> &str {
    let path = path.trim_end_matches("::{{closure}}");
    // Not inside of what a generic function is of.
    let end = path.find('<').unwrap_or(path.len());
    path[..end].rfind("::").map_or(path, |at| &path[at + 2..])
}

/// The next of 1, 2 and 5, and their tenfolds.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// Microseconds for a reader.
fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        _ if micros >= 1e6 => (micros / 1e6, "s"),
        _ if micros >= 1e3 => (micros / 1e3, "ms"),
        _ => (micros, "µs"),
    };
    let text = match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} {unit}")
}

/// A number with a thin space between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        let texts = [0.5, 12.0, 999.0, 1500.0, 20_000.0, 2.5e6].map(time);
        assert_eq!(
            texts,
            ["0.5 µs", "12 µs", "999 µs", "1.5 ms", "20 ms", "2.5 s"]
        );
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(
            [0.7, 1.0, 3.0, 700.0].map(round_step),
            [1.0, 1.0, 5.0, 1000.0]
        );
    }

    #[test]
    fn names_are_short() {
        assert_eq!(last_part("a::b::f"), "f");
        assert_eq!(last_part("a::b::{{closure}}"), "b");
        assert_eq!(last_part("a::f<b::c>"), "f<b::c>");
        assert_eq!(grouped(1_234_567), "1\u{2009}234\u{2009}567");
    }
}
