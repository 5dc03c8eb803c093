//! Memory that the kernel clears in a process that was forked.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Two words that are each 0 in a process that was just forked, until it sets them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ForkMarks {
    /// 1 in this process, once it was asked for.
    pub(crate) process: AtomicU32,
    /// 1 in a worker that serves.
    pub(crate) worker: AtomicU32,
}

/// See [`ForkMarks`]. `None`: this kernel does not clear memory in a fork.
pub(crate) fn fork_marks() -> Option<&'static ForkMarks> {
    static MARKS: OnceLock<Option<&'static ForkMarks>> = OnceLock::new();
    *MARKS.get_or_init(|| {
        let page = rustix::param::page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), page, protection, MapFlags::PRIVATE) };
        let address = mapped.ok()?;
        // SAFETY: it is the mapping made above, in which nothing is kept but the marks.
        if unsafe { madvise(address, page, Advice::LinuxWipeOnFork) }.is_err() {
            // SAFETY: nobody knows of the mapping.
            let _ = unsafe { munmap(address, page) };
            return None;
        }
        // SAFETY: the mapping is large enough, aligned to a page, zero-filled, and never unmapped.
        let marks = unsafe { &*address.cast::<ForkMarks>() };
        marks.process.store(1, Ordering::Relaxed);
        Some(marks)
    })
}
