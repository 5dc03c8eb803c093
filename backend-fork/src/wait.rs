//! Reaping a process.

use std::os::fd::AsFd;

use pool_core::{ExitStatus, poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Takes the exit status of a child, once. `None`: it is alive, and `options` say not to wait.
pub(crate) fn reap(child: WaitId<'_>, options: WaitIdOptions) -> Option<ExitStatus> {
    loop {
        match waitid(child.clone(), options | WaitIdOptions::EXITED) {
            Ok(None) => return None,
            Ok(Some(status)) => {
                let code = status.exit_status().map(ExitStatus::Code);
                let signal = status.terminating_signal().map(ExitStatus::Signal);
                return Some(code.or(signal).unwrap_or(ExitStatus::Unknown));
            }
            Err(Errno::INTR) => {}
            // Somebody else has reaped it: a `wait` for any child in the program, or its
            // ignoring SIGCHLD.
            Err(_) => return Some(ExitStatus::Unknown),
        }
    }
}

/// Reaps the children in a process group: those that are dead, or, if `options` do not say
/// otherwise, all, waiting for them.
pub(crate) fn reap_group(group: Pid, options: WaitIdOptions) {
    loop {
        match waitid(WaitId::Pgid(Some(group)), options | WaitIdOptions::EXITED) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // None is dead, or there is none.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Waits until a process has died. `false`: it has not.
pub(crate) fn wait_for_death(death: impl AsFd, timeout: Option<&Timespec>) -> bool {
    loop {
        let mut source = [PollFd::new(&death, PollFlags::IN)];
        match poll(&mut source, timeout) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
