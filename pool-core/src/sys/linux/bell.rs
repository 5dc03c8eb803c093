//! What wakes the parent: the bell of each worker. Reading and writing of events.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, retry_on_intr};

/// Rings a bell: adds one to an event, of which each addition is noticed. `false`: it cannot be
/// rung.
pub(crate) fn ring_bell(bell: BorrowedFd<'_>) -> bool {
    match add_one(bell) {
        Ok(()) => true,
        // A task has filled it. Nobody reads how often it was rung.
        Err(Errno::AGAIN) => {
            let _ = read_away(bell, &mut [0; 8]);
            add_one(bell).is_ok()
        }
        Err(_) => false,
    }
}

/// Wakes somebody who may sleep without an end. See [`read_away`] for errors; when it is full, it
/// is that which is not news.
pub(super) fn add_one(event: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let bytes = 1_u64.to_ne_bytes();
    let added = match retry_on_intr(|| rustix::io::write(event, &bytes)) {
        Err(errno) if errno != Errno::AGAIN => {
            retry_on_intr(|| rustix::io::writev(event, &[IoSlice::new(&bytes)]))
        }
        added => added,
    };
    added.map(|_| ())
}

/// Reads what woke somebody, so that it does not do so again. An error that such a descriptor never
/// has (a sandbox, a fault that is injected) may be that of one system call and not of another.
pub(super) fn read_away(from: BorrowedFd<'_>, into: &mut [u8]) -> rustix::io::Result<usize> {
    match retry_on_intr(|| rustix::io::read(from, &mut *into)) {
        Err(errno) if errno != Errno::AGAIN => {
            retry_on_intr(|| rustix::io::readv(from, &mut [IoSliceMut::new(into)]))
        }
        read => read,
    }
}
