//! The standard library's.

use std::ptr::NonNull;

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
pub(crate) use std::thread_local;

pub(crate) mod thread {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::thread::{
        Builder, JoinHandle, Thread, ThreadId, available_parallelism, current, park, park_timeout,
    };
}

/// A word that a thread, or another process, can sleep on.
pub(crate) type FutexWord = atomic::AtomicU32;

/// Says to a checker that this many bytes of a block of memory are going to be read, and which:
/// `offset` gives the place of each.
#[inline(always)]
pub(crate) fn reads(_block: NonNull<u8>, _count: usize, _offset: impl Fn(u64) -> usize) {}

/// The same of bytes that are going to be written.
#[inline(always)]
pub(crate) fn writes(_block: NonNull<u8>, _count: usize, _offset: impl Fn(u64) -> usize) {}
