//! shuttle's: it tries very many schedules of a model of any size. Every atomic operation is
//! sequentially consistent there; what weaker ones may do, loom looks at.
//!
//! A worker process is a thread here. It can be killed: a thread that has a [`Life`] ends, by
//! unwinding, at its next operation on an atomic after that was taken.

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::FutexWord;
pub(crate) use ::shuttle::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use ::shuttle::{lazy_static as for_each_run, thread_local};

/// The life of a process that a thread stands for.
#[derive(Debug, Default)]
pub(crate) struct Life {
    is_over: AtomicBool,
    bed: FutexWord,
}

/// What a thread unwinds with that was killed.
#[derive(Debug)]
pub(crate) struct WasKilled;

thread_local! {
    static LIFE: RefCell<Option<Arc<Life>>> = RefCell::new(None);
}

impl Life {
    /// The calling thread lives as long as this.
    pub(crate) fn live(self: &Arc<Self>) {
        LIFE.with(|life| *life.borrow_mut() = Some(self.clone()));
    }

    /// Kills the thread. If it sleeps on a futex, it must be woken for that.
    pub(crate) fn end(&self) {
        self.is_over.store(true, atomic::Ordering::Relaxed);
        self.bed.wake();
    }

    /// The calling thread sleeps for the rest of its life.
    pub(crate) fn sleep_away() -> ! {
        let life = LIFE.with(|life| life.borrow().clone());
        let life = life.expect("a thread that can be killed");
        loop {
            life.bed.sleep(0);
            live_or_die();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(atomic::Ordering::Relaxed)
    }
}

pub(super) fn is_alive() -> bool {
    // A thread that was never killed has no life of this kind, or one that is not over.
    !LIFE.with(|life| life.borrow().as_ref().is_some_and(|life| life.is_over()))
}

/// Ends the thread if it was killed.
pub(crate) fn live_or_die() {
    if !std::thread::panicking() && !is_alive() {
        resume_unwind(Box::new(WasKilled));
    }
}

pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub(crate) use std::sync::atomic::compiler_fence;

    use super::live_or_die;

    macro_rules! mortal {
        ($name:ident, $number:ty) => {
            /// An atomic at whose use a thread can be killed.
            #[derive(Debug, Default)]
            pub(crate) struct $name(shuttle::sync::atomic::$name);

            #[allow(dead_code, reason = "not all are used of both sizes")]
            impl $name {
                pub(crate) fn new(value: $number) -> Self {
                    Self(shuttle::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $number {
                    live_or_die();
                    let value = self.0.load(order);
                    live_or_die();
                    value
                }

                /// As `load`, by a thread that cannot be killed now.
                pub(crate) fn peek(&self, order: Ordering) -> $number {
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $number, order: Ordering) {
                    live_or_die();
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                    live_or_die();
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    live_or_die();
                    self.0.fetch_add(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    live_or_die();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    mortal!(AtomicU32, u32);
    mortal!(AtomicU64, u64);
}

pub(crate) mod thread {
    use std::io;
    use std::num::NonZero;

    pub(crate) use shuttle::hint::spin_loop;
    pub(crate) use shuttle::thread::{Builder, JoinHandle, Thread, ThreadId, current, park};

    pub(crate) use crate::sys::park_timeout;

    pub(crate) fn available_parallelism() -> io::Result<NonZero<usize>> {
        Ok(NonZero::new(crate::sys::processors()).unwrap_or(NonZero::<usize>::MIN))
    }
}

/// There are no races to look for: one thread runs at a time.
pub(crate) fn watch(_: NonNull<u8>, _: usize) {}

pub(crate) fn reads(_: NonNull<u8>, _: usize, _: impl Fn(u64) -> usize) {}

pub(crate) fn writes(_: NonNull<u8>, _: usize, _: impl Fn(u64) -> usize) {}
