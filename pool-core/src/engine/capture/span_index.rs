//! Which items of a worker have which origin.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, Weak};

use crate::observe::call_span::Origin;
use crate::sync::Mutex;

/// More items than a worker has at a time are not kept track of.
const MAX_HANDED: usize = 4096;

/// Where the items come from that a worker was handed, as long as events of them may arrive.
///
/// They are kept by their chunks: here nothing keeps a span open.
pub(super) struct Origins<T = Origin>(Mutex<VecDeque<Handed<T>>>);

/// Items that were handed to the worker, by their numbers among all of its items: from 1.
struct Handed<T> {
    first: u64,
    last: u64,
    /// Which item of its call the first one is.
    index: usize,
    origin: Weak<T>,
}

impl<T> Default for Origins<T> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<T> Origins<T> {
    /// The worker is handed these, behind all others. `index`: which item of its call the first is.
    pub(super) fn add(&self, first: u64, last: u64, index: usize, origin: &Arc<T>) {
        let mut handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if handed.len() == MAX_HANDED {
            handed.pop_front();
        }
        handed.push_back(Handed {
            first,
            last,
            index,
            origin: Arc::downgrade(origin),
        });
    }

    /// Where an item comes from that the worker says it runs, and which one of its call it is.
    pub(super) fn find(&self, item: u64) -> Option<(Arc<T>, usize)> {
        let handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = handed.partition_point(|it| it.last < item);
        let found = handed.get(at).filter(|it| it.first <= item);
        let found = found?;
        let index = found.index + usize::try_from(item - found.first).ok()?;
        Some((found.origin.upgrade()?, index))
    }

    /// All events of the first `through` items are known.
    pub(super) fn forget(&self, through: u64) {
        let mut handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while handed.front().is_some_and(|it| it.last <= through) {
            handed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_HANDED, Origins};
    use std::sync::Arc;

    /// A worker may say any number.
    #[test]
    fn items_that_the_worker_does_not_have_come_from_nowhere() {
        let origins = Origins::default();
        let (one, two) = (Arc::new(1), Arc::new(2));
        origins.add(3, 5, 20, &one);
        origins.add(9, 9, 0, &two);
        let found = |item| origins.find(item).map(|(origin, index)| (*origin, index));
        let known: Vec<_> = (0..12)
            .filter_map(|item| Some((item, found(item)?)))
            .collect();
        let of_one = [(3, (1, 20)), (4, (1, 21)), (5, (1, 22))];
        assert_eq!(known, [of_one.as_slice(), &[(9, (2, 0))]].concat());
        assert_eq!(found(u64::MAX), None);
        origins.forget(4);
        assert_eq!(found(3), Some((1, 20)));
        origins.forget(5);
        assert_eq!((found(5), found(9)), (None, Some((2, 0))));
        drop(two);
        assert_eq!(found(9), None);
    }

    #[test]
    fn what_is_never_forgotten_takes_no_more_than_so_much() {
        let origins = Origins::default();
        let origin = Arc::new(());
        let all = 3 * MAX_HANDED as u64;
        (1..=all).for_each(|item| origins.add(item, item, 0, &origin));
        let known = (1..=all).filter(|item| origins.find(*item).is_some());
        assert_eq!(known.count(), MAX_HANDED);
        assert_eq!(Arc::strong_count(&origin), 1);
    }
}
