//! The shortest possible time for items of known length on this many workers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::contender::{Contender, Role, Wrong};
use crate::job::{Job, Measured};
use crate::spin::{Pace, Spin, check, even_item, spin, tail_items};

/// `max(total / workers, longest)`: runs the items one after the other, each timed, and computes
/// it.
pub struct Bound {
    pace: Pace,
    workers: usize,
}

impl Bound {
    /// For this many workers, of which no more run at a time than there are processors.
    #[must_use]
    pub fn new(pace: Pace, workers: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            pace,
            workers: workers.clamp(1, processors),
        }
    }
}

impl Contender for Bound {
    fn name(&self) -> &str {
        "floor: max(total / workers, longest)"
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let (items, n): (Vec<Spin>, u64) = match job {
            Job::MapSpin { n, item_us } | Job::Imap { n, item_us } => {
                let steps = self.pace.steps(item_us);
                ((0..n).map(|index| even_item(index, steps)).collect(), n)
            }
            Job::MapTail {
                n,
                item_us,
                factor,
                heavy,
            } => (tail_items(n, self.pace.steps(item_us), factor, heavy), 1),
            _ => return Ok(None),
        };
        let begin = Instant::now();
        let (mut longest, mut last) = (Duration::ZERO, Duration::ZERO);
        let mut results = Vec::with_capacity(items.len());
        for &item in &items {
            results.push(spin(item));
            let now = begin.elapsed();
            longest = longest.max(now - last);
            last = now;
        }
        ensure!(check(items, &results), Wrong("sequential items".to_owned()));
        let value = bound(last, longest, self.workers).as_secs_f64() / n as f64;
        Ok(Some(Measured { value, n }))
    }
}

fn bound(total: Duration, longest: Duration, workers: usize) -> Duration {
    (total / workers as u32).max(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_sum_nor_the_longest_item_can_be_beaten() {
        let ms = Duration::from_millis;
        assert_eq!(bound(ms(100), ms(10), 4), ms(25));
        assert_eq!(bound(ms(100), ms(60), 4), ms(60));
        assert_eq!(bound(ms(100), ms(100), 1), ms(100));
    }
}
