//! The fork itself.
#![allow(unsafe_code)]

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
/// - **wait for a thread, or for a lock that a thread may have held**: it would wait for ever. The
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
