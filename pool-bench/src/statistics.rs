//! Medians, and how far the samples are spread around them.

use serde::{Deserialize, Serialize};

/// The samples of one measurement in five numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The smallest sample.
    pub min: f64,
    /// A quarter of the samples is smaller.
    pub lower: f64,
    /// Half of them is.
    pub median: f64,
    /// A quarter is larger.
    pub upper: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// `None`: there are no samples, or one of them is not a number.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|sample| sample.is_nan()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: quantile(&sorted, 0.0),
            lower: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper: quantile(&sorted, 0.75),
            max: quantile(&sorted, 1.0),
        })
    }

    /// Half the distance between the quartiles, as a part of the median: ± so much.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.upper - self.lower) / 2.0 / self.median
    }
}

/// Between two samples, in proportion.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let fraction = place - below as f64;
    sorted[below] + (sorted[above] - sorted[below]) * fraction
}

/// Rounded to five digits: more are noise, and files are read by people.
#[must_use]
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let text = format!("{value:.4e}");
    text.parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_samples() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).expect("there are samples");
        assert_eq!(summary.min, 1.0);
        assert_eq!(summary.lower, 1.75);
        assert_eq!(summary.median, 2.5);
        assert_eq!(summary.upper, 3.25);
        assert_eq!(summary.max, 4.0);
        assert_eq!(summary.spread(), 0.3);
    }

    #[test]
    fn one_sample_is_everything() {
        let summary = Summary::of(&[7.0]).expect("there is a sample");
        assert_eq!((summary.min, summary.median, summary.max), (7.0, 7.0, 7.0));
        assert_eq!(summary.spread(), 0.0);
    }

    #[test]
    fn an_outlier_moves_no_median() {
        let summary = Summary::of(&[1.0, 1.1, 0.9, 1.0, 50.0]).expect("there are samples");
        assert_eq!(summary.median, 1.0);
        assert_eq!(summary.max, 50.0);
    }

    #[test]
    fn nothing_and_no_number_have_no_median() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn rounding_keeps_five_digits() {
        assert_eq!(rounded(1.234_567e-7), 1.2346e-7);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(rounded(123_456.0), 123_460.0);
    }
}
