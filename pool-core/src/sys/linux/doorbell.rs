//! Pipes that wake somebody.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};

/// Writes one byte to a doorbell. A full pipe means that it rings already; a closed one, that
/// nobody listens any more. `false`: it cannot be rung.
pub(crate) fn ring_doorbell(doorbell: BorrowedFd<'_>) -> bool {
    matches!(write_to_wake(doorbell, &[1]), Ok(()) | Err(Errno::PIPE))
}

/// Empties a doorbell. `false`: its other end is closed, or it cannot be emptied, so that it would
/// ring forever.
pub(crate) fn silence_doorbell(doorbell: BorrowedFd<'_>) -> bool {
    matches!(
        read_away(doorbell, &mut [0; 64]),
        Ok(1..) | Err(Errno::AGAIN)
    )
}

/// Writes a few bytes, for somebody to wake who may sleep without an end. What is full will wake
/// it. An error that such a descriptor never has (a sandbox, a fault that is injected) may be that
/// of one system call and not of another.
pub(super) fn write_to_wake(to: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<()> {
    let written = match retry_on_intr(|| rustix::io::write(to, bytes)) {
        Ok(_) | Err(Errno::AGAIN) => return Ok(()),
        Err(Errno::PIPE) => return Err(Errno::PIPE),
        Err(_) => retry_on_intr(|| rustix::io::writev(to, &[IoSlice::new(bytes)])),
    };
    match written {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Reads what woke somebody, so that it does not do so again.
pub(super) fn read_away(from: BorrowedFd<'_>, into: &mut [u8]) -> rustix::io::Result<usize> {
    match retry_on_intr(|| rustix::io::read(from, &mut *into)) {
        Err(errno) if errno != Errno::AGAIN => {
            retry_on_intr(|| rustix::io::readv(from, &mut [IoSliceMut::new(into)]))
        }
        read => read,
    }
}
