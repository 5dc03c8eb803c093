//! Descriptors that a worker has from its parent.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use procpool_core::failed;
use rustix::fs::fstat;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

use crate::bootstrap_env::Inherited;

/// How a worker learns of a descriptor that it will inherit under the same number.
pub(crate) fn announce(descriptor: BorrowedFd<'_>) -> io::Result<Inherited> {
    Ok(Inherited {
        number: descriptor.as_raw_fd(),
        inode: inode(descriptor)?,
    })
}

/// Takes a descriptor that the parent has left to this process, if it is what the parent says.
pub(crate) fn take_inherited(inherited: Inherited) -> io::Result<OwnedFd> {
    let missing = || io::Error::other("a descriptor is not what the parent has left");
    if inherited.number <= 2 {
        return Err(missing());
    }
    ask(inherited.number, |descriptor| {
        if inode(descriptor)? != inherited.inode {
            return Err(missing());
        }
        fcntl_setfd(descriptor, FdFlags::CLOEXEC).map_err(failed("fcntl(F_SETFD)"))
    })?;
    // SAFETY: it is open, and nobody else in this process knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(inherited.number) })
}

/// Whether this process has opened this itself: what it has inherited lacks `FD_CLOEXEC`.
pub(crate) fn is_opened_here(number: RawFd) -> bool {
    !ask(number, |it| fcntl_getfd(it)).is_ok_and(|it| !it.contains(FdFlags::CLOEXEC))
}

/// Asks the system about what may be a descriptor, or nothing: then the answer is an error.
pub(in crate::sys) fn ask<T>(number: RawFd, question: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    assert!(number >= 0, "no descriptor has this number");
    // SAFETY: nothing is done with it but to ask the system, in there, and it is not kept.
    question(unsafe { BorrowedFd::borrow_raw(number) })
}

/// The number that all descriptors of one pipe, socket or file share.
pub(crate) fn inode(descriptor: impl AsFd) -> io::Result<u64> {
    let stat = fstat(descriptor).map_err(failed("fstat"))?;
    // Its type is each system's own.
    #[allow(clippy::unnecessary_cast, reason = "not on each system")]
    Ok(stat.st_ino as u64)
}

/// A copy of a descriptor that is not one of the standard three, and is not inherited as it is.
pub(crate) fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fcntl_dupfd_cloexec(descriptor, 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))
}
