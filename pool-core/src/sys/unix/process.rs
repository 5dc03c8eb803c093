//! How processes end.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;
use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::time::Timespec;

use super::poll::poll;

/// Whether the process has ended of which this descriptor says it, by being readable.
pub(crate) fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::new(&process, PollFlags::IN)];
    let count = retry_on_intr(|| poll(&mut watched, Some(&Timespec::default())))?;
    Ok(count > 0)
}

/// Ends this process at once: no `atexit` functions, which belong to the program that it is a copy
/// of, and no destructors.
pub fn leave(code: i32) -> ! {
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}
