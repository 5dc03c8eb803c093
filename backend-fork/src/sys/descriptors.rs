//! Closing what somebody else has opened.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use nix::libc;

/// Closes all descriptors above the standard streams but these. Where the system forbids it (a
/// seccomp filter, say), what is left stays open.
///
/// # Safety
/// This process is a copy that never again uses what stands for any other descriptor, nor drops it.
pub(crate) unsafe fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first = 3;
    for &kept in keep.iter().filter(|kept| **kept > 2) {
        // SAFETY: handed on to the caller.
        unsafe { close_range(first, kept - 1) };
        first = kept + 1;
    }
    // SAFETY: handed on to the caller.
    unsafe { close_range(first, RawFd::MAX) };
}

/// # Safety
/// As for [`close_all_but`].
unsafe fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: it takes three numbers. What they mean to others is the caller's business.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
