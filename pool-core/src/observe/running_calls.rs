//! The calls of many items that a pool runs, for who wants to see how far they are.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far a call of many items is: see [`WeakPool::calls`](crate::WeakPool::calls).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CallStatus {
    /// What it is named by in [`WeakPool::cancel`](crate::WeakPool::cancel). It is never used
    /// again.
    pub number: u64,
    /// Its [name](crate::Call::name): that of the function, if it has no other.
    pub name: Cow<'static, str>,
    /// How long ago it was made.
    pub age: Duration,
    /// How many items it has, if its input says so.
    pub total: Option<u64>,
    /// Items that were handed to the pool so far.
    pub submitted: u64,
    /// Items that have their outcome.
    pub ended: u64,
    /// Those of them that have failed.
    pub failed: u64,
}

/// A call of many items, as long as somebody waits for it.
pub(crate) trait RunningCall: Send + Sync {
    /// How far it is.
    fn progress(&self) -> CallProgress;

    /// Nobody wants what has not begun. (It is for the pool to end it.)
    fn abandon(&self);
}

/// What a call counts.
pub(crate) struct CallProgress {
    pub(crate) number: u64,
    pub(crate) total: Option<u64>,
    pub(crate) submitted: u64,
    pub(crate) ended: u64,
    pub(crate) failed: u64,
    /// Nothing more will happen.
    pub(crate) is_over: bool,
}

/// A call that an executor was told of.
#[derive(Clone)]
pub(crate) struct KnownCall {
    pub(crate) name: Cow<'static, str>,
    /// When it was made, in nanoseconds of the monotonic clock.
    pub(crate) begun: u64,
    pub(crate) call: Weak<dyn RunningCall>,
}

impl KnownCall {
    /// How far it is. `None`: it has ended.
    pub(crate) fn status(self, now: u64) -> Option<(CallStatus, Arc<dyn RunningCall>)> {
        let call = self.call.upgrade()?;
        let progress = call.progress();
        let status = CallStatus {
            number: progress.number,
            name: self.name,
            age: Duration::from_nanos(now.saturating_sub(self.begun)),
            total: progress.total,
            submitted: progress.submitted,
            ended: progress.ended,
            failed: progress.failed,
        };
        (!progress.is_over).then_some((status, call))
    }
}

/// See the module. A call is forgotten when it says that it has ended, or some time after its
/// results are.
#[derive(Default)]
pub(super) struct RunningCalls {
    calls: Vec<KnownCall>,
    /// How many there are when it is looked next for those that are gone.
    next_look: usize,
}

/// So many that are gone may be kept in any case.
const SLACK: usize = 32;

impl RunningCalls {
    pub(super) fn add(&mut self, call: KnownCall) {
        if self.calls.len() >= self.next_look {
            self.forget();
        }
        self.calls.push(call);
    }

    /// It has ended. The last one that has begun is found at once.
    pub(super) fn remove(&mut self, call: *const dyn RunningCall) {
        let is_it = |known: &KnownCall| std::ptr::addr_eq(known.call.as_ptr(), call);
        if let Some(at) = self.calls.iter().rposition(is_it) {
            self.calls.remove(at);
        }
    }

    /// Twice as many calls are made until the next time as there are now, so that a call's share
    /// is small however many there are.
    fn forget(&mut self) {
        self.calls.retain(|known| known.call.strong_count() > 0);
        self.next_look = 2 * self.calls.len() + SLACK;
    }

    pub(super) fn running(&mut self) -> Vec<KnownCall> {
        self.forget();
        self.calls.clone()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;

    /// One with a size, so that each has an address of its own.
    struct Call(#[expect(dead_code)] u8);

    impl RunningCall for Call {
        fn progress(&self) -> CallProgress {
            CallProgress {
                number: 0,
                total: None,
                submitted: 0,
                ended: 0,
                failed: 0,
                is_over: false,
            }
        }

        fn abandon(&self) {}
    }

    fn known(call: &Arc<dyn RunningCall>) -> KnownCall {
        KnownCall {
            name: "".into(),
            begun: 0,
            call: Arc::downgrade(call),
        }
    }

    #[test]
    fn calls_that_are_gone_are_forgotten() {
        let mut calls = RunningCalls::default();
        let new = || -> Arc<dyn RunningCall> { Arc::new(Call(0)) };
        let kept: Vec<_> = (0..100).map(|_| new()).collect();
        for call in &kept {
            calls.add(known(call));
            (0..100).for_each(|_| calls.add(known(&new())));
            assert!(calls.calls.len() <= 2 * kept.len() + SLACK);
        }
        assert_eq!(calls.running().len(), kept.len());
        let is_known = |calls: &RunningCalls, at: usize| {
            let same = |it: &KnownCall| std::ptr::addr_eq(it.call.as_ptr(), &raw const *kept[at]);
            calls.calls.iter().any(same)
        };
        calls.remove(&raw const *kept[30]);
        assert!(!is_known(&calls, 30) && is_known(&calls, 29) && is_known(&calls, 99));
        calls.remove(&raw const *kept[30]);
        assert_eq!(calls.running().len(), kept.len() - 1);
    }
}
