//! How long items of a function take.

use std::collections::HashMap;

/// More functions than that, and the guesses begin anew.
const MOST: usize = 1024;

/// A moving average for each function.
#[derive(Debug, Default)]
pub(crate) struct Durations(HashMap<u64, u64>);

impl Durations {
    /// An item took so many nanoseconds.
    pub(crate) fn note(&mut self, function: u64, took: u64) {
        if self.0.len() >= MOST && !self.0.contains_key(&function) {
            self.0.clear();
        }
        let average = self.0.entry(function).or_insert(took);
        // One that takes long counts at once, so that others do not wait behind its like.
        *average = if took > *average {
            took / 2 + *average / 2
        } else {
            *average - (*average - took) / 8
        };
    }

    /// About so many nanoseconds, if that is known.
    pub(crate) fn of(&self, function: u64) -> Option<u64> {
        self.0.get(&function).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_follows_what_was_seen() {
        let mut durations = Durations::default();
        assert_eq!(durations.of(1), None);
        durations.note(1, 1000);
        assert_eq!(durations.of(1), Some(1000));
        durations.note(1, 9000);
        assert_eq!(durations.of(1), Some(5000));
        for _ in 0..100 {
            durations.note(1, 1000);
        }
        assert!(durations.of(1).is_some_and(|it| it < 1100));
        assert_eq!(durations.of(2), None);
    }

    #[test]
    fn they_do_not_grow_without_end() {
        let mut durations = Durations::default();
        for function in 0..10_000 {
            durations.note(function, 1);
        }
        assert!(durations.0.len() <= MOST);
    }
}
