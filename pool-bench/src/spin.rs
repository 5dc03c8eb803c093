//! Items of known length: pure computation, calibrated once, that never looks at a clock.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

/// One item: where the computation starts, and how many steps it takes.
pub type Spin = (u64, u64);

/// Computes: each step needs the one before, so no compiler or processor can skip any.
#[must_use]
pub fn spin((seed, steps): Spin) -> u64 {
    let mut x = black_box(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..steps {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// How fast this machine computes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    steps_per_us: f64,
}

impl Pace {
    /// Measures it, which takes some milliseconds: the fastest of several tries, since whatever
    /// disturbs makes it slower.
    #[must_use]
    pub fn calibrate() -> Self {
        const STEPS: u64 = 100_000;
        let fastest = (0..100)
            .map(|try_| {
                let start = Instant::now();
                black_box(spin((try_, STEPS)));
                start.elapsed()
            })
            .min()
            .expect("there are several tries");
        Self {
            steps_per_us: STEPS as f64 / (fastest.as_secs_f64() * 1e6),
        }
    }

    /// How many steps take this many microseconds.
    #[must_use]
    pub fn steps(&self, us: u64) -> u64 {
        (self.steps_per_us * us as f64).round() as u64
    }
}

/// Item number `index` of many equal ones. There are few different ones, so that all results can
/// be checked.
#[must_use]
pub fn even_item(index: u64, steps: u64) -> Spin {
    (index % 8, steps)
}

/// Light items with `heavy` heavy ones at each of the worst places: at the start, in the middle and
/// at the very end, side by side, where they fall into one chunk.
#[must_use]
pub fn tail_items(n: u64, steps: u64, factor: u64, heavy: u64) -> Vec<Spin> {
    let middle = n / 2;
    let is_heavy = |index: u64| {
        index < heavy || (middle..middle + heavy).contains(&index) || index + heavy >= n
    };
    (0..n)
        .map(|index| {
            let steps = if is_heavy(index) {
                steps * factor
            } else {
                steps
            };
            even_item(index, steps)
        })
        .collect()
}

/// Whether these are the results of those items. Each different item is computed once.
pub fn check(items: impl IntoIterator<Item = Spin>, results: &[u64]) -> bool {
    let mut known = HashMap::new();
    let mut count = 0;
    let right = items.into_iter().zip(results).all(|(item, &result)| {
        count += 1;
        *known.entry(item).or_insert_with(|| spin(item)) == result
    });
    right && count == results.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_checked_for_value_and_number() {
        let items: Vec<Spin> = (0..20).map(|index| even_item(index, 5)).collect();
        let mut results: Vec<u64> = items.iter().copied().map(spin).collect();
        assert!(check(items.clone(), &results));
        assert!(!check(items[..19].to_vec(), &results));
        results[13] ^= 1;
        assert!(!check(items, &results));
    }

    #[test]
    fn heavy_items_stand_at_the_worst_places() {
        let items = tail_items(100, 10, 1000, 2);
        let heavy: Vec<usize> = (0..100).filter(|&i| items[i].1 == 10_000).collect();
        assert_eq!(heavy, [0, 1, 50, 51, 98, 99]);
        assert!(items.iter().all(|item| item.1 == 10 || item.1 == 10_000));
    }

    #[test]
    fn twice_the_time_is_twice_the_steps() {
        let pace = Pace {
            steps_per_us: 500.0,
        };
        assert_eq!(pace.steps(100), 50_000);
        assert_eq!(pace.steps(1), 500);
    }
}
