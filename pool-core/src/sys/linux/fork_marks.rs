//! Memory that the kernel clears in a process that was forked.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, madvise};

use crate::sys::unix::Mapping;

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
    static MARKS: OnceLock<Option<(Mapping, &'static ForkMarks)>> = OnceLock::new();
    let marks = MARKS.get_or_init(|| {
        let page = Mapping::anonymous(rustix::param::page_size()).ok()?;
        let (address, bytes) = (page.address(), page.bytes());
        // SAFETY: it is the mapping made above, in which nothing is kept but the marks, and which
        // is kept with them for ever. It is large enough for them, aligned to a page, and
        // zero-filled.
        let marks = unsafe {
            madvise(address.as_ptr().cast(), bytes, Advice::LinuxWipeOnFork).ok()?;
            address.cast::<ForkMarks>().as_ref()
        };
        marks.process.store(1, Ordering::Relaxed);
        Some((page, marks))
    });
    marks.as_ref().map(|(_, marks)| *marks)
}
