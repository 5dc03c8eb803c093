//! An axis of values: where a value stands on it, and which round values are marked.

use crate::workload::Unit;

/// The labels of more ticks would touch each other on a narrow page.
const MOST_TICKS: usize = 6;

/// From `low` to `high`.
#[derive(Debug)]
pub struct ValueAxis {
    unit: Unit,
    low: f64,
    high: f64,
    is_log: bool,
}

impl ValueAxis {
    /// From 0 to something above 0.
    #[must_use]
    pub fn linear(unit: Unit, high: f64) -> Self {
        Self {
            unit,
            low: 0.0,
            high,
            is_log: false,
        }
    }

    /// On which equal factors have equal lengths. Both are above 0.
    #[must_use]
    pub fn log(unit: Unit, low: f64, high: f64) -> Self {
        Self {
            unit,
            low,
            high,
            is_log: true,
        }
    }

    /// The same, a little longer, so that it begins and ends at round numbers.
    #[must_use]
    pub fn log_around(unit: Unit, low: f64, high: f64) -> Self {
        Self::log(unit, 1.0 / round_up(1.1 / low), round_up(1.1 * high))
    }

    /// Where a value stands, in percent of the length; at an end if it is outside.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        100.0 * part.clamp(0.0, 1.0)
    }

    /// Round values on it: powers of two where they are bytes, else decimal ones.
    #[must_use]
    pub fn ticks(&self) -> Vec<f64> {
        match (self.is_log, self.unit) {
            (false, Unit::Bytes) => {
                let mut ticks = self.powers(2.0, 1);
                // Smaller ones stand close together.
                ticks.retain(|tick| tick * 6.0 > self.high);
                ticks.insert(0, 0.0);
                ticks
            }
            (false, unit) => {
                let least = if unit == Unit::Count { 1.0 } else { 0.0 };
                let step = round_up(self.high / (MOST_TICKS - 1) as f64).max(least);
                let last = (self.high / step) as u32;
                (0..=last).map(|tick| f64::from(tick) * step).collect()
            }
            (true, Unit::Bytes) => self.few(&[1, 2, 5, 10, 20], |stride| self.powers(2.0, stride)),
            (true, _) => self.few(&[0, 1, 2, 3, 4, 5, 10], |stride| match stride {
                0 => self.steps(),
                _ => self.powers(10.0, stride),
            }),
        }
    }

    /// The first of these that are not too many.
    fn few(&self, strides: &[i32], ticks: impl Fn(i32) -> Vec<f64>) -> Vec<f64> {
        let mut all = strides.iter().map(|&stride| ticks(stride));
        all.find(|ticks| ticks.len() <= MOST_TICKS)
            .unwrap_or_default()
    }

    /// Each power of the base whose exponent is a multiple of the stride.
    fn powers(&self, base: f64, stride: i32) -> Vec<f64> {
        // Nothing is below a byte, and no clock as fine as this.
        let least = if self.unit == Unit::Bytes { 0 } else { -15 };
        let all = (least..64).filter(|exponent| exponent % stride == 0);
        self.inside(all.map(|exponent| base.powi(exponent)))
    }

    /// 1, 2, 5, 10, 20, and so on.
    fn steps(&self) -> Vec<f64> {
        let powers = (-15..15).map(|exponent| 10f64.powi(exponent));
        self.inside(powers.flat_map(|power| [power, 2.0 * power, 5.0 * power]))
    }

    fn inside(&self, ticks: impl Iterator<Item = f64>) -> Vec<f64> {
        // An end can be a tick that was computed with other last digits.
        let ends = self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9);
        ticks.filter(|tick| ends.contains(tick)).collect()
    }
}

/// The next of 1, 2, 5, 10, 20, and so on.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let mut steps = [1.0, 2.0, 5.0].into_iter();
    let step = steps.find(|step| step * power >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::value;

    fn labels(axis: &ValueAxis, unit: Unit) -> Vec<String> {
        axis.ticks().iter().map(|&tick| value(unit, tick)).collect()
    }

    #[test]
    fn bytes_are_marked_at_powers_of_two() {
        let kib = |high| labels(&ValueAxis::linear(Unit::Bytes, high * 1024.0), Unit::Bytes);
        assert_eq!(kib(700.0), ["0 B", "128 KiB", "256 KiB", "512 KiB"]);
        assert_eq!(kib(1023.0), ["0 B", "256 KiB", "512 KiB"]);
        assert_eq!(kib(40_000.0), ["0 B", "8 MiB", "16 MiB", "32 MiB"]);
        let log = ValueAxis::log(Unit::Bytes, 40.0, 3e9);
        let marks = ["1 KiB", "32 KiB", "1 MiB", "32 MiB", "1 GiB"];
        assert_eq!(labels(&log, Unit::Bytes), marks);
        let log = ValueAxis::log(Unit::Bytes, 5e3, 3e5);
        let marks = ["8 KiB", "16 KiB", "32 KiB", "64 KiB", "128 KiB", "256 KiB"];
        assert_eq!(labels(&log, Unit::Bytes), marks);
    }

    #[test]
    fn times_are_marked_at_decimal_numbers() {
        let times = |axis| labels(&axis, Unit::Seconds);
        let linear = ValueAxis::linear(Unit::Seconds, 8.3e-6);
        assert_eq!(times(linear), ["0 ns", "2 µs", "4 µs", "6 µs", "8 µs"]);
        let log = ValueAxis::log(Unit::Seconds, 0.7e-6, 0.2);
        let marks = ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"];
        assert_eq!(times(log), marks);
        let log = ValueAxis::log(Unit::Seconds, 1.3e-6, 60e-6);
        assert_eq!(times(log), ["2 µs", "5 µs", "10 µs", "20 µs", "50 µs"]);
        let around = ValueAxis::log_around(Unit::Seconds, 30e-9, 30e-9);
        assert_eq!(times(around), ["20 ns", "50 ns"]);
    }

    #[test]
    fn events_are_whole_ones() {
        let axis = ValueAxis::linear(Unit::Count, 2.2);
        assert_eq!(labels(&axis, Unit::Count), ["0", "1", "2"]);
    }

    /// Any axis has two marks or more, in order, with room for their labels.
    #[test]
    fn marks_are_neither_few_nor_close() {
        for unit in [Unit::Seconds, Unit::Bytes] {
            for step in 0..90 {
                let low = 1.3f64.powi(step - if unit == Unit::Bytes { 0 } else { 80 });
                let axes = [60.0, 1e3, 3e4, 1e9].map(|far| ValueAxis::log(unit, low, low * far));
                for axis in axes.into_iter().chain([ValueAxis::linear(unit, low * 6.0)]) {
                    let ticks = axis.ticks();
                    assert!(ticks.len() >= 2, "{axis:?}: {ticks:?}");
                    for pair in ticks.windows(2) {
                        let distance = axis.place(pair[1]) - axis.place(pair[0]);
                        assert!(distance > 12.0, "{axis:?}: {ticks:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_stand_in_proportion_and_never_outside() {
        let linear = ValueAxis::linear(Unit::Seconds, 4.0);
        assert_eq!([0.0, 1.0, 9.0].map(|x| linear.place(x)), [0.0, 25.0, 100.0]);
        let log = ValueAxis::log(Unit::Seconds, 1.0, 10_000.0);
        assert_eq!([0.0, 100.0, 1e9].map(|x| log.place(x)), [0.0, 50.0, 100.0]);
    }
}
