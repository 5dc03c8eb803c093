//! Reaping a process.

use std::os::fd::AsFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use procpool_core::{ExitStatus, poll};
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

/// Reaps the children in a process group that are dead. `true`: there are no others.
pub(crate) fn reap_group(group: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::Pgid(Some(group)), options) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Reaps all children in a process group, which were killed. One that does not die, or that
/// somebody traces, is not waited for longer than [`LAST_MOMENT`].
pub(crate) fn reap_whole_group(group: Pid) {
    let end = Instant::now() + LAST_MOMENT;
    // Some of them may be such of which nobody here has a pidfd to wait for.
    until_ready(|| {
        if reap_group(group) || Instant::now() >= end {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
}

/// Asks again and again, ever more seldom, for what something dying has to leave soon.
pub(crate) fn until_ready<T>(mut ask: impl FnMut() -> Poll<T>) -> T {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Poll::Ready(answer) = ask() {
            return answer;
        }
        let _ = poll(&mut [], Timespec::try_from(pause).ok().as_ref());
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// How long the rest of a dying process may take: microseconds, unless others need the processor.
const LAST_MOMENT: Duration = Duration::from_secs(1);

pub(crate) const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

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
