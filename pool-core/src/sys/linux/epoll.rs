//! An epoll instance.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::Timespec;

use super::event::Event;
use super::waiting::wait_in_epoll;
use crate::sys::refused::failed;
use crate::sys::unix::off_standard;

/// An epoll instance. `token` comes back as long as its source is ready, unless it says otherwise.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC);
        let poller = Self(off_standard(instance.map_err(failed("epoll_create1"))?)?);
        // Whether one can wait is known here, where the error has somewhere to go.
        poller.wait(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.0, source, data, epoll::EventFlags::IN).map_err(failed("epoll_ctl"))
    }

    /// Of a source that was added, only this is of interest from now on: the other end is closed.
    pub(crate) fn hear_hang_up_alone(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        // The kernel reports a hang-up whatever was asked for.
        let events = epoll::EventFlags::empty();
        epoll::modify(&self.0, source, data, events).map_err(failed("epoll_ctl"))
    }

    /// Watches for each event that is set, whether or not somebody clears it. Whoever is given the
    /// token has to act on it: it does not come again.
    pub(crate) fn add_for_each_change(&self, source: &Event, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.0, source, data, events).map_err(failed("epoll_ctl"))
    }

    /// Watches whether another poller has something. It must not have this one.
    pub(crate) fn add_poller(&self, inner: &Self, token: u64) -> io::Result<()> {
        self.add(&inner.0, token)
    }

    pub(crate) fn delete_poller(&self, inner: &Self) -> io::Result<()> {
        self.delete(&inner.0)
    }

    pub(crate) fn delete(&self, source: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, source)?)
    }

    /// Waits until a source is readable (or hung up) and puts the tokens into `ready`, which is
    /// left empty when the time is over or a signal came.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        wait_in_epoll(self.0.as_fd(), ready, timeout.as_ref())
    }
}
