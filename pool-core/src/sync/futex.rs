//! A futex for models: what the kernel does, done with a lock and a condition variable.

use std::ops::Deref;
use std::sync::PoisonError;

use super::atomic::{AtomicU32, Ordering};
use super::{Condvar, Mutex};

/// A word that a thread can sleep on.
#[derive(Debug, Default)]
pub(crate) struct FutexWord {
    value: AtomicU32,
    bed: Mutex<()>,
    woken: Condvar,
}

impl Deref for FutexWord {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.value
    }
}

impl FutexWord {
    /// Sleeps until it is woken, if the word has this value. As in the kernel, nobody wakes in
    /// between the look and the sleep.
    pub(crate) fn sleep(&self, expected: u32) {
        let bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_alive() || self.peek() != expected {
            return;
        }
        let bed = self.woken.wait(bed);
        drop(bed.unwrap_or_else(PoisonError::into_inner));
    }

    /// Wakes the one sleeper.
    pub(crate) fn wake(&self) {
        let _bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }

    #[cfg(loom)]
    fn peek(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    /// The value, without being killed over it: there is a lock to be given back first.
    #[cfg(shuttle)]
    fn peek(&self) -> u32 {
        self.value.peek(Ordering::Relaxed)
    }
}

#[cfg(loom)]
fn is_alive() -> bool {
    true
}

#[cfg(shuttle)]
fn is_alive() -> bool {
    super::shuttle::is_alive()
}
