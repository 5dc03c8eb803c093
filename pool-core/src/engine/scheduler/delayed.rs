//! What is not to begin yet, by the time at which it may.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// See the module.
pub(super) struct Delayed<U> {
    /// The one that is due first on top.
    units: BinaryHeap<Unit<U>>,
    /// How many there have been.
    count: u64,
}

struct Unit<U> {
    due: u64,
    /// Of those that are due at the same time, the first one comes first.
    number: u64,
    unit: U,
}

impl<U> Unit<U> {
    fn key(&self) -> (u64, u64) {
        (self.due, self.number)
    }
}

impl<U> PartialEq for Unit<U> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<U> Eq for Unit<U> {}

impl<U> PartialOrd for Unit<U> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<U> Ord for Unit<U> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<U> Delayed<U> {
    pub(super) fn new() -> Self {
        Self {
            units: BinaryHeap::new(),
            count: 0,
        }
    }

    /// A unit that may begin at this time.
    pub(super) fn push(&mut self, unit: U, due: u64) {
        let number = self.count;
        self.count += 1;
        self.units.push(Unit { due, number, unit });
    }

    /// When the next one may begin.
    #[inline]
    pub(super) fn next_due(&self) -> Option<u64> {
        self.units.peek().map(|unit| unit.due)
    }

    /// Takes one that may begin by now: the one that could first.
    pub(super) fn pop(&mut self, now: u64) -> Option<U> {
        self.next_due().filter(|due| *due <= now)?;
        self.units.pop().map(|unit| unit.unit)
    }

    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &U> {
        self.units.iter().map(|unit| &unit.unit)
    }

    /// Takes out the units for which `take` says so, in the order of their times.
    pub(super) fn extract(&mut self, take: impl Fn(&U) -> bool) -> Vec<U> {
        if self.units.is_empty() {
            return Vec::new();
        }
        let units = std::mem::take(&mut self.units);
        let (mut taken, kept): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|unit| take(&unit.unit));
        self.units = kept.into();
        taken.sort_by_key(Unit::key);
        taken.into_iter().map(|unit| unit.unit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_the_order_of_their_times() {
        let mut delayed = Delayed::new();
        for (name, due) in [("b", 20), ("a", 10), ("c", 20), ("d", 30)] {
            delayed.push(name, due);
        }
        assert_eq!((delayed.len(), delayed.next_due()), (4, Some(10)));
        assert_eq!(delayed.pop(9), None);
        let mut due = Vec::new();
        while let Some(name) = delayed.pop(20) {
            due.push(name);
        }
        assert_eq!(due, ["a", "b", "c"]);
        assert_eq!((delayed.next_due(), delayed.is_empty()), (Some(30), false));
    }

    #[test]
    fn what_is_taken_out_is_not_there_any_more() {
        let mut delayed = Delayed::new();
        for number in 0..10_u64 {
            delayed.push(number, 100 - number);
        }
        assert_eq!(delayed.extract(|number| number % 3 == 0), [9, 6, 3, 0]);
        assert_eq!(delayed.iter().count(), 6);
        assert_eq!(delayed.pop(u64::MAX), Some(8));
    }
}
