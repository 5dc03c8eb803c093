//! What a signal handler knows.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that a handler finds, whenever it comes. It takes no lock for that.
pub(super) struct SignalData<T>(AtomicPtr<T>);

impl<T: Send + Sync> SignalData<T> {
    /// Nothing so far.
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// From now on, handlers find this value. What was there before is not freed, for one may be
    /// looking at it: so this is for what is set once in the life of a process, or once more in a
    /// fork of it.
    pub(super) fn set(&self, value: T) {
        self.0
            .store(Box::into_raw(Box::new(value)), Ordering::Release);
    }

    /// The value, if there is one.
    pub(super) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `set` has put there, which is never freed, and of which there are
        // shared references alone.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}
