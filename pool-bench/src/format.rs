//! Numbers as people read them.

use crate::workload::Unit;

const BYTES: &[(&str, f64)] = &[
    ("B", 1024.0),
    ("KiB", 1024.0),
    ("MiB", 1024.0),
    ("GiB", 1e9),
];

/// A value with its unit, in three digits.
#[must_use]
pub fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Seconds => scaled(
            value * 1e9,
            &[("ns", 1e3), ("µs", 1e3), ("ms", 1e3), ("s", 1e9)],
        ),
        Unit::Bytes => scaled(value, BYTES),
        Unit::Count => format!("{value}"),
    }
}

/// A size on the axis of a curve.
#[must_use]
pub fn size(bytes: bool, value: u64) -> String {
    if bytes {
        return scaled(value as f64, BYTES);
    }
    let mut text = value.to_string();
    let mut place = text.len();
    while place > 3 {
        place -= 3;
        text.insert(place, ',');
    }
    text
}

/// How many times as much, in two or three digits.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if !ratio.is_finite() => "-".to_owned(),
        ratio if ratio >= 100.0 => format!("{ratio:.0} ×"),
        ratio if ratio >= 10.0 => format!("{ratio:.1} ×"),
        ratio if ratio >= 0.1 => format!("{ratio:.2} ×"),
        ratio => format!("{ratio:.2e} ×"),
    }
}

fn scaled(mut value: f64, units: &[(&str, f64)]) -> String {
    let mut units = units.iter();
    let &(mut name, mut limit) = units.next().expect("there is a unit");
    while value.abs() >= limit * 0.9995 {
        let Some(next) = units.next() else { break };
        value /= limit;
        (name, limit) = *next;
    }
    let text = match value.abs() {
        // A computed tick is whole but for its last digits.
        x if x >= 99.95 || (x - x.round()).abs() < 1e-9 => format!("{value:.0}"),
        x if x >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    format!("{text} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_the_next_unit_in_time() {
        let seconds = |seconds| value(Unit::Seconds, seconds);
        assert_eq!(seconds(1.234e-9), "1.23 ns");
        assert_eq!(seconds(300e-9), "300 ns");
        assert_eq!(seconds(999.9e-9), "1.00 µs");
        assert_eq!(seconds(12.34e-3), "12.3 ms");
        assert_eq!(seconds(123.0), "123 s");
        assert_eq!(seconds(3.0 * 2e-6), "6 µs");
        assert_eq!(value(Unit::Bytes, 524_288.0), "512 KiB");
        assert_eq!(value(Unit::Count, 0.0), "0");
    }

    #[test]
    fn sizes_are_grouped_or_binary() {
        assert_eq!(size(false, 10_000_000), "10,000,000");
        assert_eq!(size(false, 256), "256");
        assert_eq!(size(true, 4 << 30), "4 GiB");
        assert_eq!(size(true, 0), "0 B");
    }

    #[test]
    fn ratios_of_every_size_are_readable() {
        assert_eq!(ratio(1234.5), "1234 ×");
        assert_eq!(ratio(0.5), "0.50 ×");
        assert_eq!(ratio(0.00012), "1.20e-4 ×");
        assert_eq!(ratio(f64::INFINITY), "-");
    }
}
