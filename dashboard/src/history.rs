//! What was a while ago: for rates, and shares of time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How far back a rate looks, in seconds: less would jump about, and more would lag behind.
const WINDOW: f64 = 5.0;

/// Of things that grow, how fast. Times are in seconds.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    known: HashMap<K, VecDeque<(f64, f64)>>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// It has grown to this value. How fast it did, over the last seconds; `None`: it is new.
    pub(crate) fn note(&mut self, key: K, at: f64, value: f64) -> Option<f64> {
        let known = self.known.entry(key).or_default();
        // The oldest one is as old as the window, or all that there is.
        while known.len() > 1 && known[1].0 <= at - WINDOW {
            known.pop_front();
        }
        let rate = known.front().and_then(|(before, was)| {
            let time = at - before;
            (time > 0.0).then(|| ((value - was) / time).max(0.0))
        });
        known.push_back((at, value));
        rate
    }

    /// Only what was noted at this time is still there.
    pub(crate) fn forget_before(&mut self, at: f64) {
        let is_there = |known: &VecDeque<(f64, f64)>| known.back().is_some_and(|it| it.0 >= at);
        self.known.retain(|_, known| is_there(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut rates = Rates::default();
        assert_eq!(rates.note("a", 0.0, 0.0), None);
        assert_eq!(rates.note("a", 1.0, 10.0), Some(10.0));
        assert_eq!(rates.note("a", 2.0, 20.0), Some(10.0));
        for second in 3..20 {
            rates.note("a", f64::from(second), 20.0);
        }
        assert_eq!(rates.note("a", 20.0, 20.0), Some(0.0));
        assert!(rates.known["a"].len() <= 8);
        rates.note("b", 20.0, 1.0);
        rates.forget_before(20.0);
        assert_eq!(rates.known.len(), 2);
        rates.forget_before(21.0);
        assert!(rates.known.is_empty());
    }
}
