//! A forked worker, as the server sees it.

use std::os::fd::{AsFd, OwnedFd};

use pool_core::ExitStatus;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
};

use crate::wait;

/// A worker that was forked and is not reaped. As long as there is this value, its process
/// identifier, and so its process group's, is not used for another one.
///
/// Dropping it does nothing: a worker drops the server's.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// Once it was killed: its pidfd.
    death: Option<OwnedFd>,
}

impl Child {
    pub(super) fn new(pid: Pid) -> Self {
        // The worker does so itself as well. Whoever of the two is first: once the server says
        // hello for it, killing the group reaches it.
        let _ = rustix::process::setpgid(Some(pid), Some(pid));
        Self { pid, death: None }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Kills it and its process group.
    pub(super) fn kill(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = kill_process(self.pid, Signal::KILL);
        if self.death.is_none() {
            self.death = pidfd_open(self.pid, PidfdFlags::empty()).ok();
        }
    }

    /// Reaps it, after [`kill`](Self::kill). `None`: it is still dying, and
    /// [`source`](Self::source) tells when to ask again.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        // Without a pidfd (no descriptors left) nobody would tell. It was killed, so the wait is
        // short.
        let options = match self.death {
            Some(_) => WaitIdOptions::NOHANG,
            None => WaitIdOptions::empty(),
        };
        wait::reap(WaitId::Pid(self.pid), options)
    }

    /// What to wait for before it can be reaped; nothing, unless it was killed.
    pub(super) fn source(&self) -> Option<PollFd<'_>> {
        let death = self.death.as_ref()?;
        Some(PollFd::from_borrowed_fd(death.as_fd(), PollFlags::IN))
    }
}
