//! Reaping a process.

use pool_core::ExitStatus;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

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
