//! Who is woken when a pool may have come to its end.

use std::sync::PoisonError;
use std::task::Waker;

use crate::panic::catch::catch_and_discard;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The wakers of those that wait for a pool's end as futures do.
///
/// A waker is added before it is asked whether the pool has ended, and is woken after something has
/// happened that may have been the last. What has happened and what is asked is under one lock, so
/// one of the two sees the other.
#[derive(Default)]
pub(crate) struct EndWatch {
    wakers: Mutex<Vec<Waker>>,
    has_any: AtomicBool,
}

impl EndWatch {
    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a waker, to be woken once.
    pub(crate) fn add(&self, waker: &Waker) {
        // To clone and to drop a waker is to run what the user has written.
        let waker = waker.clone();
        let mut wakers = self.lock();
        self.has_any.store(true, Ordering::SeqCst);
        let is_known = wakers.iter().any(|other| other.will_wake(&waker));
        if is_known {
            drop(wakers);
        } else {
            wakers.push(waker);
        }
    }

    /// Forgets a waker.
    pub(crate) fn remove(&self, waker: &Waker) {
        let mut wakers = self.lock();
        let at = wakers.iter().position(|other| other.will_wake(waker));
        let removed = at.map(|at| wakers.swap_remove(at));
        drop(wakers);
        drop(removed);
    }

    /// Whether there is anybody to be woken.
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.has_any.load(Ordering::SeqCst)
    }

    /// Wakes all. To be called without a lock.
    pub(crate) fn wake(&self) {
        if self.has_any() {
            let mut wakers = self.lock();
            self.has_any.store(false, Ordering::SeqCst);
            let woken = std::mem::take(&mut *wakers);
            drop(wakers);
            for waker in woken {
                catch_and_discard(|| waker.wake());
            }
        }
    }
}
