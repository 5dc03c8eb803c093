//! Which items of a piece have no outcome.

use std::ops::Range;

/// The items, by index.
#[derive(Debug)]
pub(crate) struct Pending {
    items: Range<usize>,
    /// All before this one have an outcome.
    next: usize,
    /// Of those from `next` on, which have one. Empty as long as they come in order.
    taken: Vec<bool>,
    left: usize,
}

impl Pending {
    pub(crate) fn new(items: Range<usize>) -> Self {
        Self {
            next: items.start,
            taken: Vec::new(),
            left: items.len(),
            items,
        }
    }

    /// The item has an outcome now. `false`: it had one, or is none of these.
    pub(crate) fn take(&mut self, index: usize) -> bool {
        if index < self.next || !self.items.contains(&index) {
            return false;
        }
        if index == self.next && self.taken.is_empty() {
            self.next += 1;
            self.left -= 1;
            return true;
        }
        if self.taken.is_empty() {
            self.taken = vec![false; self.items.end - self.next];
        }
        let at = index - self.next;
        if std::mem::replace(&mut self.taken[at], true) {
            return false;
        }
        self.left -= 1;
        true
    }

    /// These have outcomes now. `false`: one of them had one, or is none of these, and nothing has
    /// changed.
    pub(crate) fn take_range(&mut self, items: Range<usize>) -> bool {
        let is_inside = self.items.start <= items.start && items.end <= self.items.end;
        if !is_inside || items.start < self.next || items.is_empty() {
            return false;
        }
        if self.taken.is_empty() && items.start == self.next {
            self.left -= items.len();
            self.next = items.end;
            return true;
        }
        let is_taken = |index| self.taken.get(index - self.next).copied().unwrap_or(false);
        if items.clone().any(is_taken) {
            return false;
        }
        items.for_each(|index| {
            self.take(index);
        });
        true
    }

    /// All have one now. Says which had none.
    pub(crate) fn take_all(&mut self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for index in self.next..self.items.end {
            let is_taken = self.taken.get(index - self.next).copied();
            if is_taken.unwrap_or(false) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.end == index => last.end += 1,
                _ => ranges.push(index..index + 1),
            }
        }
        self.next = self.items.end;
        self.taken.clear();
        self.left = 0;
        ranges
    }

    /// How many have none.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_taken_once(
            items in (0_usize..20, 1_usize..20),
            taken in proptest::collection::vec((0_usize..45, 0_usize..4), 0..60),
        ) {
            let items = items.0..items.0 + items.1;
            let mut pending = Pending::new(items.clone());
            let mut left: Vec<usize> = items.collect();
            for (index, more) in taken {
                if more > 0 {
                    let range = index..index + more;
                    let is_left = range.clone().all(|it| left.contains(&it));
                    prop_assert_eq!(pending.take_range(range.clone()), is_left);
                    if is_left {
                        left.retain(|it| !range.contains(it));
                    }
                    continue;
                }
                let at = left.iter().position(|it| *it == index);
                prop_assert_eq!(pending.take(index), at.is_some());
                if let Some(at) = at {
                    left.remove(at);
                }
                prop_assert_eq!(pending.is_empty(), left.is_empty());
            }
            let rest: Vec<usize> = pending.take_all().into_iter().flatten().collect();
            prop_assert_eq!(rest, left);
            prop_assert!(pending.is_empty());
        }
    }
}
