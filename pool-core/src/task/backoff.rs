//! How long a failed item waits before it is tried again.

use std::time::Duration;

use crate::sys;

/// How long to wait before the next attempt: what [`Call::backoff`](crate::Call::backoff) takes.
///
/// A `Duration` is a constant one. [`exponential`](Self::exponential) waits longer from one attempt
/// to the next:
///
/// ```
/// # use procpool_core as procpool;
/// use std::time::Duration;
/// use procpool::Backoff;
///
/// let backoff = Backoff::exponential(Duration::from_millis(100)).max(Duration::from_secs(1));
/// let delays = [1, 2, 3, 4, 5, 6].map(|retry| backoff.delay(retry).as_millis());
/// assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
///
/// let constant = Backoff::from(Duration::from_secs(1));
/// assert_eq!(constant.delay(9), Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    first: Duration,
    factor: f64,
    max: Duration,
    has_jitter: bool,
}

impl Backoff {
    /// The same delay before each attempt.
    #[must_use]
    pub const fn constant(delay: Duration) -> Self {
        Self {
            first: delay,
            factor: 1.0,
            max: Duration::MAX,
            has_jitter: false,
        }
    }

    /// `first` before the second attempt, and twice as long before each one that follows, without
    /// a limit but that of [`max`](Self::max).
    #[must_use]
    pub const fn exponential(first: Duration) -> Self {
        Self {
            factor: 2.0,
            ..Self::constant(first)
        }
    }

    /// How many times as long each delay is as the one before, instead of twice. One that is not a
    /// positive number makes the call fail as [`Invalid`](crate::TaskErrorKind::Invalid).
    #[must_use]
    pub const fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// No delay is longer.
    #[must_use]
    pub const fn max(self, max: Duration) -> Self {
        Self { max, ..self }
    }

    /// Takes a random part of each delay, between nothing and all of it ("full jitter"), so that
    /// items that failed together do not come back together. Without it, delays are exact.
    #[must_use]
    pub const fn jitter(self, jitter: bool) -> Self {
        Self {
            has_jitter: jitter,
            ..self
        }
    }

    /// How long the item waits before it is tried again for the `retry`-th time, counted from 1;
    /// with jitter, at most.
    #[must_use]
    pub fn delay(&self, retry: u32) -> Duration {
        let times = f64::from(retry.saturating_sub(1));
        let seconds = self.first.as_secs_f64() * self.factor.powf(times);
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        // A first one is exact: it does not go through a floating-point number.
        if retry <= 1 { self.first } else { delay }.min(self.max)
    }

    /// The delay of one item.
    pub(crate) fn draw(&self, retry: u32) -> Duration {
        let longest = self.delay(retry);
        if self.has_jitter && !longest.is_zero() {
            part(longest, sys::random_seed())
        } else {
            longest
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.factor.is_finite() && self.factor > 0.0
    }
}

/// A part of the delay, by a random number.
fn part(longest: Duration, random: u64) -> Duration {
    let share = random as f64 / u64::MAX as f64;
    Duration::try_from_secs_f64(longest.as_secs_f64() * share)
        .unwrap_or(longest)
        .min(longest)
}

impl From<Duration> for Backoff {
    fn from(delay: Duration) -> Self {
        Self::constant(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_delay_grows_by_its_factor_up_to_the_maximum() {
        let backoff = Backoff::exponential(SECOND).factor(3.0).max(SECOND * 20);
        let delays = [0, 1, 2, 3, 4, u32::MAX].map(|retry| backoff.delay(retry).as_secs());
        assert_eq!(delays, [1, 1, 3, 9, 20, 20]);
        let endless = Backoff::exponential(SECOND);
        assert_eq!(endless.delay(u32::MAX), Duration::MAX);
        let shrinking = Backoff::exponential(SECOND * 8).factor(0.5);
        assert_eq!(shrinking.delay(3), SECOND * 2);
        assert_eq!(
            Backoff::exponential(Duration::ZERO).delay(9),
            Duration::ZERO
        );
    }

    #[test]
    fn jitter_is_a_part_of_the_delay() {
        assert_eq!(part(SECOND, 0), Duration::ZERO);
        assert_eq!(part(SECOND, u64::MAX), SECOND);
        let half = part(SECOND, u64::MAX / 2);
        assert!(
            half.abs_diff(SECOND / 2) < Duration::from_micros(1),
            "{half:?}"
        );
        assert_eq!(part(Duration::MAX, u64::MAX), Duration::MAX);
        let exact = Backoff::constant(SECOND);
        assert_eq!(exact.draw(1), SECOND);
        let drawn = Vec::from_iter((0..20).map(|_| exact.jitter(true).draw(1)));
        assert!(drawn.iter().all(|it| *it <= SECOND));
        assert!(drawn.iter().any(|it| *it != drawn[0]), "{drawn:?}");
    }

    #[test]
    fn a_factor_is_a_positive_number() {
        let backoff = Backoff::exponential(SECOND);
        assert!(backoff.is_valid() && backoff.factor(0.5).is_valid());
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(!backoff.factor(factor).is_valid(), "{factor}");
        }
    }
}
