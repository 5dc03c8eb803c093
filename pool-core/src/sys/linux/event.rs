//! An event descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::bell::{add_one, read_away};
use crate::sys::refused::failed;
use crate::sys::unix::off_standard;

/// A flag that a thread in a [`Poller`](super::epoll::Poller) can wait for.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(failed("eventfd2"))?;
        Ok(Self(off_standard(event)?))
    }

    /// The descriptor by which another process sets it, with
    /// [`ring_bell`](super::bell::ring_bell).
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(crate) fn set(&self) {
        // If it is refused both ways, there is nothing left but the sleeper's timers.
        let _ = add_one(self.0.as_fd());
    }

    pub(crate) fn clear(&self) {
        // Nothing to read means that it was not set.
        let _ = read_away(self.0.as_fd(), &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
