//! What binds a process to another one, and to its terminal.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::fs::fcntl_getfl;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Signal, dumpable_behavior, getpgid, set_dumpable_behavior,
    set_parent_process_death_signal,
};

use crate::sys::refused::failed;
use crate::sys::unix::{connected_pair, leave_with_other_end, own_pid};

/// The kernel's `F_SETSIG`, the same on all machines.
const F_SETSIG: libc::c_int = 10;

/// From now on, whatever happens at this end of a connection, a hang-up at least, makes the kernel
/// send this signal to this process, or to all of its process group if it leads one. The kernel
/// remembers with what credentials this was asked for, and asks for no others then; and it keeps
/// the group itself and not its number.
///
/// # Errors
/// When the system, a sandbox perhaps, refuses it.
pub fn be_signalled_by(end: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // Nobody else must be signalled because nobody says who this is.
    let me = NonZero::new(own_pid()).ok_or_else(|| failed("getpid")(Errno::PERM))?;
    let owner = me.get().cast_signed();
    let leads = getpgid(None)?.as_raw_nonzero().get() == owner;
    // A negative number stands for a process group.
    signal_on_events(end, if leads { -owner } else { owner }, signal)
}

/// Ties a process to this one: when the end that this returns is closed, by whatever end of this
/// process, the kernel kills the other one. It keeps that process itself and not its number, which
/// must be its own until this returns: one of a child that is not reaped.
///
/// The other process does nothing for it, and can undo nothing of it, so it may be any program. The
/// connection's other end lies in the queue of this one.
///
/// # Errors
/// When the system, a sandbox perhaps, refuses it.
pub fn tie_process(pid: u32) -> io::Result<OwnedFd> {
    let (ours, theirs) = connected_pair()?;
    leave_with_other_end(theirs.as_fd(), theirs.as_fd())?;
    signal_on_events(theirs.as_fd(), pid.cast_signed(), Signal::KILL.as_raw())?;
    Ok(ours)
}

/// Makes the kernel send a signal to a process, or to a group (a negative number), whenever
/// something happens at this end of a connection.
fn signal_on_events(end: BorrowedFd<'_>, owner: libc::c_int, signal: i32) -> io::Result<()> {
    let set = |what, value: libc::c_int| {
        // SAFETY: the descriptor is open, and these take a number each.
        let done = unsafe { libc::fcntl(end.as_raw_fd(), what, value) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    set(F_SETSIG, signal)?;
    set(libc::F_SETOWN, owner)?;
    let flags = fcntl_getfl(end)?.bits().cast_signed();
    set(libc::F_SETFL, flags | libc::O_ASYNC)
}

/// This thread; 0 if a sandbox refuses to say it.
#[must_use]
pub(crate) fn own_tid() -> u32 {
    nix::unistd::gettid().as_raw().max(0).unsigned_abs()
}

/// Asks the kernel to kill this process when the thread ends that has started it.
pub(crate) fn die_with_starter() {
    // It fails only where a sandbox forbids it; then there is the other tie.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Lets the system end this process rather than others when memory runs out.
pub(crate) fn raise_oom_score(by: i32) {
    let path = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(path).ok();
    if let Some(score) = score.and_then(|score| score.trim().parse::<i32>().ok()) {
        // The kernel's limit. It fails where `/proc` is read-only.
        let _ = as_owner(|| std::fs::write(path, (score + by).min(1000).to_string()));
    }
}

/// Writes into what belongs to this process in `/proc`: to root, where it is not dumpable. Then it
/// is for a moment.
fn as_owner(write: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match write() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_dumpable() => {
            set_dumpable(true)?;
            let written = write();
            set_dumpable(false)?;
            written
        }
        written => written,
    }
}

/// Whether other processes of the user may look into this one.
pub(crate) fn is_dumpable() -> bool {
    matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable))
}

/// Lets them, or not.
pub(crate) fn set_dumpable(is_dumpable: bool) -> io::Result<()> {
    let behavior = match is_dumpable {
        true => DumpableBehavior::Dumpable,
        false => DumpableBehavior::NotDumpable,
    };
    Ok(set_dumpable_behavior(behavior)?)
}
