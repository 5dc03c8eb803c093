//! Watching a child until it dies: a pidfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procpool_core::{ExitStatus, failed, off_standard};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, pidfd_open, pidfd_send_signal};

use super::exit_info::exit_info;

/// A descriptor that is readable when a child has died, and stands for it whatever becomes of its
/// number.
#[derive(Debug)]
pub(in crate::sys) struct Watch(OwnedFd);

impl Watch {
    /// What it is made by, for an error's text.
    pub(in crate::sys) const CALL: &str = "pidfd_open";

    /// Of a child that nobody has reaped.
    pub(in crate::sys) fn over(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed(Self::CALL))?;
        off_standard(pidfd).map(Self)
    }

    pub(in crate::sys) fn kill(&self) {
        // An error means that it is dead.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// The child, to be waited for.
    pub(in crate::sys) fn child(&self) -> WaitId<'_> {
        WaitId::PidFd(self.0.as_fd())
    }

    /// How it ended, if somebody else has reaped it. `None`: it is about to be.
    pub(in crate::sys) fn how_it_ended(&self) -> Option<ExitStatus> {
        exit_info(self.0.as_fd()).unwrap_or(Some(ExitStatus::Unknown))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
