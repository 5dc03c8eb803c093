//! What tells one process of another, of which there is none.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use super::fd::{AsFd, BorrowedFd, OwnedFd};
use super::missing::missing;

pub(crate) const MAX_PASSED: usize = 253;

/// A flag that a thread in a [`Poller`] can wait for: there is none.
#[derive(Debug)]
pub(crate) struct Event(Infallible);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        Err(missing("an event"))
    }

    pub(crate) fn set(&self) {
        match self.0 {}
    }

    pub(crate) fn clear(&self) {
        match self.0 {}
    }

    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

/// Who waits for descriptors: there is none.
#[derive(Debug)]
pub(crate) struct Poller(Infallible);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Err(missing("a poller"))
    }

    pub(crate) fn add(&self, _source: impl AsFd, _token: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn hear_hang_up_alone(&self, _source: impl AsFd, _token: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn add_for_each_change(&self, _source: &Event, _token: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn delete(&self, _source: impl AsFd) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn add_poller(&self, _inner: &Self, _token: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn delete_poller(&self, _inner: &Self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn wait(&self, _ready: &mut Vec<u64>, _timeout: Option<Duration>) -> io::Result<()> {
        match self.0 {}
    }
}

/// A packet that has come.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    pub(crate) is_cut: bool,
}

pub(crate) fn connected_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(missing("a connection"))
}

pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(missing("a connection"))
}

pub(crate) fn leave_with_other_end(
    end: BorrowedFd<'_>,
    _descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    end.never()
}

pub(crate) fn take_what_was_left(end: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    end.never()
}

pub(crate) fn hang_up(end: impl AsFd) {
    end.as_fd().never()
}

pub(crate) fn is_hung_up(end: BorrowedFd<'_>) -> io::Result<bool> {
    end.never()
}

pub(crate) fn send_packet(
    socket: BorrowedFd<'_>,
    _bytes: &[u8],
    _descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    socket.never()
}

pub(crate) fn is_congested(_error: &io::Error) -> bool {
    false
}

pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    _into: &mut [u8],
) -> io::Result<Option<Packet>> {
    socket.never()
}

pub(crate) fn has_packets(socket: BorrowedFd<'_>) -> bool {
    socket.never()
}

pub(crate) fn wait_for_packet(socket: BorrowedFd<'_>, _nanoseconds: u64) -> io::Result<bool> {
    socket.never()
}

pub(crate) fn ring_bell(bell: BorrowedFd<'_>) -> bool {
    bell.never()
}

pub(crate) fn inode(pipe: BorrowedFd<'_>) -> Option<(u64, u64)> {
    pipe.never()
}

/// The same descriptor, of which there is none.
///
/// # Errors
/// Never.
pub fn off_standard(descriptor: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    Ok(descriptor.into())
}
