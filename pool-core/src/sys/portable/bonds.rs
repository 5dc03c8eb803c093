//! What binds a process to another one, where the system does nothing of it by itself: a thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::{Pid, getpgrp, getpid};
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};

use super::sleep::nap;
use crate::sys::refused::{failed, failed_in};
use crate::sys::unix::{inode, off_standard, poll, starter};

/// From now on, a hang-up at this end of a connection, or whatever arrives there, makes a thread
/// send this signal to this process, or to all of its process group if it leads one.
///
/// # Errors
/// When there is no thread to be had, or no descriptor.
pub fn be_signalled_by(end: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = Signal::try_from(signal)?;
    let end = off_standard(end.try_clone_to_owned()?)?;
    let known = inode(end.as_fd());
    // The signals are the other threads' business: this one inherits the mask.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let parent = starter();
    let thread = thread::Builder::new()
        .name("procpool-tie".into())
        .spawn(move || wait_and_signal(&end, known, parent, signal));
    before.thread_set_mask()?;
    thread.map(drop).map_err(failed_in("pthread_create"))
}

/// Waits for a hang-up. `false`: the system refuses it, or a task has closed what it does not know,
/// and this number is nobody's, or that of a file of its own, whose end is no news.
fn hears_hang_up(end: &OwnedFd, known: Option<(u64, u64)>) -> bool {
    let mut source = [PollFd::new(end, PollFlags::IN)];
    retry_on_intr(|| poll(&mut source, None)).is_ok() && is_known(end, known)
}

fn is_known(end: &OwnedFd, known: Option<(u64, u64)>) -> bool {
    known.is_some() && inode(end.as_fd()) == known
}

/// How often the parent is looked for where its end of a connection cannot be watched any more.
const LOOK: Duration = Duration::from_millis(100);

fn wait_and_signal(end: &OwnedFd, known: Option<(u64, u64)>, parent: u32, signal: Signal) {
    while !hears_hang_up(end, known) && starter() == parent {
        nap(LOOK);
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

#[cfg(test)]
mod tests {
    use rustix::io::dup2;

    use super::*;
    use crate::sys::unix::connected_pair;

    #[test]
    fn what_a_task_has_put_into_its_place_is_no_end() {
        let (ours, mut theirs) = connected_pair().expect("sockets");
        let known = inode(theirs.as_fd());
        drop(ours);
        assert!(hears_hang_up(&theirs, known));
        let file = std::fs::File::open("/dev/null").expect("a file");
        // It can always be read.
        dup2(&file, &mut theirs).expect("it is open");
        assert!(!hears_hang_up(&theirs, known));
    }
}
