//! How a process ended, from its pidfd: also when it is not there any more, and nobody's child.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use procpool_core::ExitStatus;
use rustix::io::Errno;

/// The kernel's `struct pidfd_info` in its first version.
#[derive(Debug, Default)]
#[repr(C)]
struct PidfdInfo {
    /// What is asked for, and then what there is.
    mask: u64,
    cgroup: u64,
    /// Process, thread group and parent, and eight identifiers of users and groups.
    ids: [u32; 11],
    /// As `wait` reports it.
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`.
const EXIT: u64 = 1 << 3;

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: u32 = 3 << 30 | (size_of::<PidfdInfo>() as u32) << 16 | 0xff << 8 | 11;

/// How a process ended that somebody, or the system, has reaped. `None`: it is about to
/// be.
///
/// # Errors
/// When the system does not know: before Linux 6.15, or in a sandbox.
pub(super) fn exit_info(process: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the number contains the size of what the pointer leads to, and the kernel writes no
    // more. Any bytes are a value of that type.
    let answer = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO as _, &raw mut info) };
    if answer < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOTTY));
    }
    Ok((info.mask & EXIT != 0).then(|| {
        if libc::WIFEXITED(info.exit_code) {
            ExitStatus::Code(libc::WEXITSTATUS(info.exit_code))
        } else {
            ExitStatus::Signal(libc::WTERMSIG(info.exit_code))
        }
    }))
}
