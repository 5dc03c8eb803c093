//! What threads are made of: the standard library's, or that of a model checker.
//!
//! Built with `--cfg loom` or `--cfg shuttle`, the same code runs under a checker that chooses who
//! goes on at each step, and tries all or very many of these choices. So whatever threads or
//! processes do to each other goes through this module, and through `sys`.

/// This is a build for a model checker.
pub(crate) const IS_MODEL: bool = cfg!(any(loom, shuttle));

#[cfg(not(any(loom, shuttle)))]
mod native {
    use std::ptr::NonNull;

    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::thread_local;

    pub(crate) mod thread {
        pub(crate) use std::hint::spin_loop;
        pub(crate) use std::thread::{
            Builder, JoinHandle, Thread, ThreadId, available_parallelism, current, park,
            park_timeout,
        };
    }

    /// A word that a thread, or another process, can sleep on.
    pub(crate) type FutexWord = atomic::AtomicU32;

    /// Says to a checker that so many bytes of a block of memory are going to be read, and which.
    #[inline(always)]
    pub(crate) fn reads(_: NonNull<u8>, _: usize, _: impl Fn(u64) -> usize) {}

    /// The same of bytes that are going to be written.
    #[inline(always)]
    pub(crate) fn writes(_: NonNull<u8>, _: usize, _: impl Fn(u64) -> usize) {}

    /// A place where another process's barrier may reach this thread. (It may at any other, but
    /// that makes no difference.)
    #[inline(always)]
    pub(crate) fn interruption() {}
}

#[cfg(not(any(loom, shuttle)))]
pub(crate) use native::{
    Condvar, FutexWord, Mutex, MutexGuard, atomic, interruption, reads, thread, thread_local,
    writes,
};
