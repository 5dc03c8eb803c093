//! What the system says of open files.

use std::os::fd::BorrowedFd;

use rustix::fs::fstat;

/// By what a pipe is known, whatever becomes of its descriptor's number.
pub(crate) fn inode(pipe: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = fstat(pipe).ok()?;
    // Their types are each system's own.
    #[allow(clippy::unnecessary_cast, reason = "not on each system")]
    Some((stat.st_dev as u64, stat.st_ino as u64))
}
