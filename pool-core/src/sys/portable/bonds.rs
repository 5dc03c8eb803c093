//! What binds a process to another one, where the system does nothing of it by itself: a thread.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::{Pid, getpgrp, getpid};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::sleep::nap;
use crate::sys::refused::{failed, failed_in};
use crate::sys::{off_standard, poll, starter};

/// From now on, a hang-up at this end of a connection, or whatever arrives there, makes a thread
/// send this signal to this process, or to all of its process group if it leads one.
///
/// # Errors
/// When there is no thread to be had, or no descriptor.
pub fn be_signalled_by(end: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    let end = off_standard(end.try_clone_to_owned()?)?;
    // The signals are the other threads' business: this one inherits the mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let parent = starter();
    let thread = thread::Builder::new()
        .name("procpool-tie".into())
        .spawn(move || wait_and_signal(&end, parent, signal));
    before.thread_set_mask()?;
    thread.map(drop).map_err(failed_in("pthread_create"))
}

/// How often the parent is looked for where its end of a connection cannot be watched any more.
const LOOK: Duration = Duration::from_millis(100);

fn wait_and_signal(end: &OwnedFd, parent: u32, signal: Signal) {
    loop {
        let mut source = [PollFd::new(end, PollFlags::IN)];
        let polled = poll(&mut source, None);
        match polled {
            Err(Errno::INTR) => {}
            Ok(_) if !source[0].revents().contains(PollFlags::NVAL) => break,
            // The system refuses it, or a task has closed what it does not know.
            _ if starter() != parent => break,
            _ => nap(LOOK),
        }
    }
    let me = getpid();
    let leads = getpgrp() == me;
    // It reaches this process as well. An error would mean that there is none.
    let _ = kill(
        if leads {
            Pid::from_raw(-me.as_raw())
        } else {
            me
        },
        signal,
    );
}

/// Ties a process to this one that does nothing for it: no system but Linux can.
///
/// # Errors
/// Always.
pub fn tie_process(_pid: u32) -> io::Result<OwnedFd> {
    Err(failed("fcntl(F_SETSIG)")(Errno::NOSYS))
}

/// No process is killed when the one ends that has started it, but by [`be_signalled_by`].
pub(crate) fn die_with_starter() {}

/// What the system ends when memory runs out is its own decision.
pub(crate) fn raise_oom_score(_by: i32) {}

/// Whether other processes of the user may look into this one.
pub(crate) fn is_dumpable() -> bool {
    true
}

/// Lets them, or not, which cannot be had.
pub(crate) fn set_dumpable(is_dumpable: bool) -> io::Result<()> {
    match is_dumpable {
        true => Ok(()),
        false => Err(failed("prctl(PR_SET_DUMPABLE)")(Errno::NOSYS)),
    }
}
