//! Watching a child until it dies: a thread waits for it.
//!
//! A pipe that the child holds would do without a thread. But what a task forks holds it as well,
//! and may live longer.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use procpool_core::{ExitStatus, failed_in, off_standard};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// A descriptor that is readable when a child has died.
#[derive(Debug)]
pub(in crate::sys) struct Watch {
    pid: Pid,
    /// A pipe that the thread closes.
    death: PipeReader,
}

/// The thread has nothing on its stack.
const STACK: usize = 64 << 10;

impl Watch {
    /// What it is made by, for an error's text.
    pub(in crate::sys) const CALL: &str = "pipe";

    /// Of a child that nobody has reaped.
    pub(in crate::sys) fn over(pid: Pid) -> io::Result<Self> {
        let (death, end) = io::pipe().map_err(failed_in(Self::CALL))?;
        let death = off_standard(death)?.into();
        let end = off_standard(end)?;
        let thread = thread::Builder::new()
            .name("procpool-wait".into())
            .stack_size(STACK);
        thread
            .spawn(move || {
                // It is left to be reaped by who has started it. An error means that somebody has
                // done so.
                let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), options));
                drop(end);
            })
            .map_err(failed_in("pthread_create"))?;
        Ok(Self { pid, death })
    }

    /// The group was killed, and with it the child that leads it.
    pub(in crate::sys) fn kill(&self) {}

    /// The child, to be waited for.
    pub(in crate::sys) fn child(&self) -> WaitId<'_> {
        WaitId::Pid(self.pid)
    }

    /// How it ended, if somebody else has reaped it: nobody knows.
    pub(in crate::sys) fn how_it_ended(&self) -> Option<ExitStatus> {
        Some(ExitStatus::Unknown)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.death.as_fd()
    }
}
