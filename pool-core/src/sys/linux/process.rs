//! What is asked and said of whole processes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use nix::libc;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::readlink;
use rustix::io::{Errno, retry_on_intr};
use rustix::time::Timespec;

use crate::sys::waiting::poll;

/// What a thread is started by, for an error's text.
pub(crate) const THREAD_CALL: &str = "clone3 (a thread)";

/// Whether the process with this number is being taken down, or is dead: its memory goes before its
/// descriptors do, and both before anybody hears of its death.
pub(crate) fn is_leaving(pid: u32) -> bool {
    let program = readlink(format!("/proc/{pid}/exe"), Vec::new());
    matches!(program, Err(Errno::NOENT | Errno::SRCH))
}

/// Whether the process has ended of which this is a pidfd.
pub(crate) fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::new(&process, PollFlags::IN)];
    let count = retry_on_intr(|| poll(&mut watched, Some(&Timespec::default())))?;
    Ok(count > 0)
}

/// Ends this process at once: no `atexit` functions, no destructors.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}
