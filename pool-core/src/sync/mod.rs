//! What threads are made of: the standard library's, or that of a model checker.
//!
//! Built with `--cfg loom` or `--cfg shuttle`, the same code runs under a checker that chooses who
//! goes on at each step, and tries all or very many of these choices. So whatever threads or
//! processes do to each other goes through this module, and through `sys`.

use std::cell::Cell;
use std::ptr;

#[cfg(any(loom, shuttle))]
mod futex;
#[cfg(loom)]
mod loom;
#[cfg(not(any(loom, shuttle)))]
mod native;
#[cfg(shuttle)]
mod shuttle;

#[cfg(any(loom, shuttle))]
pub(crate) use futex::FutexWord;
#[cfg(loom)]
pub(crate) use loom::{
    Condvar, Mutex, MutexGuard, atomic, for_each_run, reads, thread, thread_local, watch, writes,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use native::{
    Condvar, FutexWord, Mutex, MutexGuard, atomic, reads, thread, thread_local, writes,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    Condvar, Life, Mutex, MutexGuard, WasKilled, atomic, for_each_run, live_or_die, reads, thread,
    thread_local, watch, writes,
};

/// A number that no other thread has while this one lives.
pub(crate) fn thread_number() -> usize {
    thread_local! {
        static HERE: Cell<u8> = const { Cell::new(0) };
    }
    HERE.with(|here| ptr::from_ref(here).addr())
}

/// This is a build for a model checker.
pub(crate) const IS_MODEL: bool = cfg!(any(loom, shuttle));
