//! The names of calls.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// How many numbers a thread takes from the counter at a time, so that threads which make calls
/// do not pass its cache line around.
const BLOCK: u64 = 256;

/// The name of one call of the user's within this process; a call of many items has one name.
///
/// A name is never used again: a message about a call that has ended, such as a late
/// [`cancel`](crate::Executor::cancel), means no other call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(u64);

impl CallId {
    /// The name of what no user has called.
    pub(crate) const NOBODY: Self = Self(0);

    /// The name of a new call of many items.
    pub(crate) fn of_many() -> Self {
        Self(next() << 1)
    }

    /// The name of a new call of a single task.
    pub(crate) fn of_single() -> Self {
        Self(next() << 1 | 1)
    }

    /// The name that is this number.
    pub(crate) fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The name as a number, to be sent.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether it is a call of a single task: one chunk of one item. Its handle has its outcome
    /// from the moment at which it is cancelled, unless the task runs.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.0 & 1 == 1
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}", self.0 >> 1)
    }
}

/// A number, from 1 on, that was not given to anybody in this process.
fn next() -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        /// The numbers that this thread has left: the next one, and the first that is not its.
        static OWN: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }
    let (mut next, mut end) = OWN.get();
    if next == end {
        next = COUNTER.fetch_add(BLOCK, Ordering::Relaxed);
        end = next + BLOCK;
    }
    next += 1;
    OWN.set((next, end));
    next
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_is_used_twice() {
        let names = || -> Vec<CallId> {
            let both = (0..2000).flat_map(|_| [CallId::of_many(), CallId::of_single()]);
            both.collect()
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(names)).collect();
        let mut all: Vec<CallId> = threads
            .into_iter()
            .flat_map(|it| it.join().expect("no panic"))
            .collect();
        all.extend(names());
        let unique: HashSet<CallId> = all.iter().copied().collect();
        assert_eq!(unique.len(), all.len());
        assert!(!unique.contains(&CallId::NOBODY));
        assert!(all.iter().step_by(2).all(|name| !name.is_single()));
        assert!(all.iter().skip(1).step_by(2).all(|name| name.is_single()));
    }
}
