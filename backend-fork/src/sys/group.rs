//! The process group of a process that somebody else may have reaped.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// The kernel's `PIDFD_SIGNAL_PROCESS_GROUP`.
const PROCESS_GROUP: libc::c_uint = 1 << 2;

/// Kills what is left of the process group that this process leads or led, even if it was reaped:
/// the pidfd stands for the group as well, whatever has become of the number. Linux 6.9 or later;
/// before, there is no way to do this that cannot hit another group.
pub(crate) fn kill_group_of(leader: BorrowedFd<'_>) {
    let no_details: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open, and no memory is read or written.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            leader.as_raw_fd(),
            libc::SIGKILL,
            no_details,
            PROCESS_GROUP,
        )
    };
}
