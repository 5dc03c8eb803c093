//! Linux: what binds a process to another one, and to its terminal.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::libc;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::fcntl_getfl;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};
use rustix::process::{
    DumpableBehavior, Signal, dumpable_behavior, getpgid, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::time::Timespec;

use super::linux::off_standard;
use super::refused::failed;
use super::waiting::poll;

/// Both ends of a new connection.
pub(crate) fn connected_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed("socketpair"))?;
    Ok((off_standard(one)?, off_standard(other)?))
}

/// Leaves a copy of a descriptor in the queue of the other end of a connection.
pub(crate) fn leave_with_other_end(
    end: BorrowedFd<'_>,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let copies = [descriptor];
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&copies));
    debug_assert!(fits, "there is space for one");
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let parts = [IoSlice::new(&[0])];
    retry_on_intr(|| sendmsg(end, &parts, &mut ancillary, flags)).map_err(failed("sendmsg"))?;
    Ok(())
}

/// Takes the descriptor that the other end has left here.
pub(crate) fn take_what_was_left(end: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(end, &mut parts, &mut ancillary, flags)
    })
    .map_err(failed("recvmsg"))?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut left) = message
            && let Some(descriptor) = left.next()
        {
            return off_standard(descriptor);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Ends a connection, even if other processes hold copies of this end.
pub(crate) fn hang_up(end: impl AsFd) {
    // It fails when the other end is closed already.
    let _ = shutdown(end, Shutdown::Both);
}

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

/// The process that this one is a child of; 0 if that is in another process namespace, or a sandbox
/// refuses to say it. (rustix takes it, as the two that follow, for a call that cannot fail, and
/// panics in debug builds.)
#[must_use]
pub fn starter() -> u32 {
    // Where it is refused, the answer is a negative number.
    nix::unistd::getppid().as_raw().max(0).unsigned_abs()
}

/// This process; 0 if a sandbox refuses to say it.
#[must_use]
pub fn own_pid() -> u32 {
    nix::unistd::getpid().as_raw().max(0).unsigned_abs()
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

/// Whether the other end of a connection is closed.
pub(crate) fn is_hung_up(end: BorrowedFd<'_>) -> io::Result<bool> {
    // Nothing is asked for: a hang-up is always reported.
    let mut end = [PollFd::new(&end, PollFlags::empty())];
    retry_on_intr(|| poll(&mut end, Some(&Timespec::default())))?;
    Ok(end[0].revents().contains(PollFlags::HUP))
}
