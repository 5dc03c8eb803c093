//! The server's standby, as the server sees it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use procpool_core::poll;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::message::{Announcement, KNOWN};
use crate::socket::Socket;
use crate::sys;

/// A standby that lived that long has not died of what it is.
const LONG_LIFE: Duration = Duration::from_secs(1);
/// How long the second try waits after one that failed; the next ones wait twice as long each.
const BACK_OFF: Duration = Duration::from_millis(10);
/// The longest that one waits.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);

/// The copy of the server that takes its place when it dies. It is made while nothing but this
/// crate's code has run in the server, as the workers are, and is a child of the parent, not of the
/// server; the parent gets the one end of its main socket.
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// Its pidfd, as long as it is not known to be dead.
    death: Option<OwnedFd>,
    /// What is still to be sent to the parent, with its end of the standby's main socket, and the
    /// pidfd.
    news: Option<(Announcement, Option<(Socket, OwnedFd)>)>,
    /// When the last one was made, or could not be.
    made: Option<Instant>,
    /// How many in a row could not be made, or died soon.
    failures: u32,
}

impl Standby {
    /// Makes one if there is none and it is time to, and notifies the parent. `Some`: this is the
    /// standby, and that is its main socket.
    pub(super) fn keep(&mut self, main: &Socket) -> Option<Socket> {
        if self.death.as_ref().is_some_and(is_dead) {
            self.death = None;
            self.news = None;
            self.failed();
        }
        if self.death.is_none() && self.wait().is_zero() {
            match self.make() {
                Ok(None) => {}
                Ok(called) => return called,
                Err(errno) => {
                    self.news = Some((Announcement(Err(errno)), None));
                    self.failed();
                }
            }
        }
        self.announce(main);
        None
    }

    /// Whether the parent knows what it should.
    pub(super) fn is_announced(&self) -> bool {
        self.news.is_none()
    }

    /// What to wait for before [`keep`](Self::keep) has something to do.
    pub(super) fn source(&self) -> Option<PollFd<'_>> {
        let death = self.death.as_ref()?;
        Some(PollFd::from_borrowed_fd(death.as_fd(), PollFlags::IN))
    }

    /// After which time it has in any case.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.death.is_none().then(|| self.wait())
    }

    fn make(&mut self) -> Result<Option<Socket>, Errno> {
        let (parents, own) = Socket::pair().map_err(|(_, errno)| errno)?;
        self.made = Some(Instant::now());
        // SAFETY: the server never starts a thread. What the copy must not do is listed at
        // `sys::fork`; it returns from here straight to `entrypoint::run` and leaves from there. It
        // asks the C library for nothing that depends on the thread.
        let Some((pid, death)) = (unsafe { sys::fork_sibling() })? else {
            return Ok(Some(own));
        };
        let copy = death.try_clone().map_err(|error| {
            // The standby sees its socket closed, and leaves.
            Errno::from_io_error(&error).unwrap_or(Errno::MFILE)
        })?;
        self.news = Some((Announcement(Ok(pid)), Some((parents, copy))));
        self.death = Some(death);
        Ok(None)
    }

    fn announce(&mut self, main: &Socket) {
        let Some((news, standby)) = &self.news else {
            return;
        };
        let told = match standby {
            None => main.send(&news.encode(), &[]),
            Some((socket, death)) => main
                .send(&news.encode(), &[socket.as_fd(), death.as_fd()])
                .and_then(|()| socket.send(KNOWN, &[])),
        };
        // A standby that cannot be announced to the parent sees its socket closed, and leaves.
        if told != Err(Errno::AGAIN) {
            self.news = None;
        }
    }

    /// None could be made, or one has died.
    fn failed(&mut self) {
        let now = Instant::now();
        if self.made.is_some_and(|made| now - made >= LONG_LIFE) {
            self.failures = 0;
        } else {
            self.failures += 1;
        }
        self.made = Some(now);
    }

    /// How long to wait before one is made.
    fn wait(&self) -> Duration {
        let (Some(made), 1..) = (self.made, self.failures) else {
            return Duration::ZERO;
        };
        let delay = BACK_OFF * (1 << (self.failures - 1).min(10));
        delay.min(MAX_BACK_OFF).saturating_sub(made.elapsed())
    }
}

fn is_dead(death: &OwnedFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(death, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
