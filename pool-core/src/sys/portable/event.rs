//! What wakes a thread in a poller: a byte in a socket.
//!
//! Not in a pipe: where processes have names in `/proc`, others of the same user can open a pipe
//! there and take its bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, recv, send};

use crate::sys::unix::{SENDING, connected_pair};

/// A flag that a thread in a [`Poller`](super::Poller) can wait for.
#[derive(Debug)]
pub(crate) struct Event {
    heard: OwnedFd,
    rung: OwnedFd,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        let (heard, rung) = connected_pair()?;
        Ok(Self { heard, rung })
    }

    pub(crate) fn set(&self) {
        // If it is refused, there is nothing left but the sleeper's timers.
        ring_bell(self.rung.as_fd());
    }

    pub(crate) fn clear(&self) {
        silence(self.heard.as_fd());
    }

    /// The end by which another process sets it, with [`ring_bell`].
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.rung.as_fd()
    }

    /// Both ends: the one that is readable once the other one has been rung, and that other one.
    pub(crate) fn into_ends(self) -> (OwnedFd, OwnedFd) {
        (self.heard, self.rung)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}

/// Rings a bell. `false`: it cannot be rung.
pub(crate) fn ring_bell(bell: BorrowedFd<'_>) -> bool {
    match retry_on_intr(|| send(bell, &[1], SENDING)) {
        // Full: nobody has heard the last one yet.
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => true,
        Err(_) => false,
    }
}

/// Takes the bytes away that a bell has left, so that it can be heard again. A bell that is rung
/// all the time is heard again at once. Says whether there were any.
pub(super) fn silence(heard: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 4096];
    let received = retry_on_intr(|| recv(heard, &mut bytes[..], RecvFlags::DONTWAIT));
    received.is_ok_and(|(bytes, _)| bytes > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Poller;
    use super::*;

    fn is_set(poller: &Poller) -> bool {
        let mut ready = Vec::new();
        let looked = poller.wait(&mut ready, Some(Duration::ZERO));
        looked.expect("it can be looked at");
        !ready.is_empty()
    }

    #[test]
    fn an_event_is_set_until_it_is_cleared() {
        let (event, poller) = (Event::new().unwrap(), Poller::new().unwrap());
        poller.add(&event, 1).expect("room for it");
        assert!(!is_set(&poller));
        for rings in [1, 2, 1000] {
            for _ in 0..rings {
                event.set();
            }
            assert!(is_set(&poller) && is_set(&poller));
            event.clear();
            assert!(!is_set(&poller));
        }
    }

    #[test]
    fn a_bell_that_nobody_hears_can_be_rung() {
        let event = Event::new().unwrap();
        assert!((0..100_000).all(|_| ring_bell(event.bell())));
        let (heard, bell) = event.into_ends();
        drop(heard);
        assert!(!ring_bell(bell.as_fd()));
    }
}
