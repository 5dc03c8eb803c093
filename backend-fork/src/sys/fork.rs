//! The fork itself.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;
use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::process::Pid;

/// Copies this process. `None`: this is the copy.
///
/// # What the copy must not do
/// It has the parent's memory, but not its threads, and shares with it whatever descriptors stand
/// for. So the copy must not
/// - **return to the caller's code or unwind into it**: `main` would go on twice. Everything the
///   copy does happens below a `catch_unwind`, and ends in [`leave`](super::leave);
/// - **call `exit`**: `atexit` functions and the destructors of statics would undo what belongs to
///   the parent (remove its temporary files, say goodbye to its database);
/// - **wait for a thread, or for a lock that a thread may have held**: it would wait forever. The
///   server is copied while there is one thread, and never has a second;
/// - **keep descriptors that are not its own**: while a copy of a socket or pipe is open anywhere,
///   its other end sees no end-of-file. The server closes the parent's end, a worker all of the
///   server's;
/// - **drop the parent's values that act on the world** (a connection's `Drop` would shut the
///   parent's socket down): each of ours remembers the process it belongs to;
/// - **run the parent's signal handlers**, or keep signals blocked: see
///   [`reset_signals`](super::reset_signals);
/// - **keep text in output buffers** that the parent is going to write: see
///   [`flush_streams`](super::flush_streams);
/// - **stay in the parent's process group**: the terminal's Ctrl-C would reach it;
/// - **outlive the parent**.
///
/// # Safety
/// Either this process has one thread, or the caller answers for it that the copy takes no lock
/// and reads no memory that another thread was at.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place from which to fork; the rules are above"
)]
pub(crate) unsafe fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: handed on to the caller.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => Ok(None),
        Ok(ForkResult::Parent { child }) => Ok(Pid::from_raw(child.as_raw())),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// Copies this process into a child of its parent: a sibling, which the parent can wait for
/// whatever becomes of this one. Answers the identifier and the pidfd of the copy. `None`: this is
/// the copy.
///
/// The C library does not know of it (it has no wrapper for this that goes on on the same stack):
/// what programs have registered with `pthread_atfork` does not run, and the library takes the
/// copy's thread for the original's. Neither matters to a copy that does nothing but wait and
/// [`fork`] workers, which sets both right for them.
///
/// # Safety
/// As for [`fork`]; moreover this process has one thread, and neither the copy nor what it calls
/// depends on the C library's idea of the thread's number.
pub(crate) unsafe fn fork_sibling() -> Result<Option<(Pid, OwnedFd)>, Errno> {
    let flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD) as libc::c_ulong;
    let same_stack: libc::c_ulong = 0;
    let mut pidfd: libc::c_int = -1;
    // One machine has these two the other way round.
    let (first, second) = if cfg!(target_arch = "s390x") {
        (same_stack, flags)
    } else {
        (flags, same_stack)
    };
    // SAFETY: without CLONE_VM the copy has memory of its own, and goes on on its copy of this
    // stack, as after a fork; the kernel writes a descriptor to `pidfd`. The rest is the caller's.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            first,
            second,
            &raw mut pidfd,
            0_usize,
            0_usize,
        )
    };
    if pid < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN));
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    // SAFETY: the kernel has just opened it for this process.
    Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}
