//! A forked worker, as the server sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use procpool_core::ExitStatus;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
};

use crate::wait::{self, NOW};

/// How soon a process is asked again whose pidfd does not say when, first and at most.
const ASK_AGAIN: Duration = Duration::from_millis(1);
const ASK_SELDOM: Duration = Duration::from_secs(1);

/// A worker that was forked and is not reaped. As long as there is this value, its process
/// identifier, and so its process group's, is not used for another one.
///
/// Dropping it does nothing: a worker drops the server's.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    /// Once it was killed: its pidfd.
    death: Option<OwnedFd>,
    /// When to ask again, and how long that was put off for. It is dead and somebody traces it, who
    /// has its status for now, or there is no pidfd.
    again: Option<(Instant, Duration)>,
}

impl Child {
    pub(super) fn new(pid: Pid) -> Self {
        // The worker does so itself as well. One of the two is first: once the server says
        // hello for it, killing the group reaches it.
        let _ = rustix::process::setpgid(Some(pid), Some(pid));
        Self {
            pid,
            death: None,
            again: None,
        }
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
    /// [`source`](Self::source) or [`wait`](Self::wait) says when to ask again.
    pub(super) fn reap(&mut self) -> Option<ExitStatus> {
        let status = wait::reap(WaitId::Pid(self.pid), WaitIdOptions::NOHANG);
        let is_silent = match &self.death {
            Some(death) => wait::wait_for_death(death, Some(&NOW)),
            None => true,
        };
        if status.is_none() && is_silent {
            let now = Instant::now();
            let pause = match self.again {
                Some((when, _)) if when > now => return None,
                Some((_, pause)) => (pause * 2).min(ASK_SELDOM),
                None => ASK_AGAIN,
            };
            self.again = Some((now + pause, pause));
        }
        status
    }

    /// What to wait for before it can be reaped; nothing, unless it was killed.
    pub(super) fn source(&self) -> Option<PollFd<'_>> {
        let death = self.death.as_ref().filter(|_| self.again.is_none())?;
        Some(PollFd::from_borrowed_fd(death.as_fd(), PollFlags::IN))
    }

    /// How long to wait at most before it is asked again.
    pub(super) fn wait(&self) -> Option<Duration> {
        let (when, _) = self.again?;
        Some(when.saturating_duration_since(Instant::now()))
    }
}
