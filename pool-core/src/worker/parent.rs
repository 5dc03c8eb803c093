//! What ties a worker to its parent.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::sys;
use crate::sys::Signal;
use crate::sys::fd::{AsFd, OwnedFd};

/// Ties this process, and all of its process group, to the parent: from now on the kernel kills
/// them when the parent ends, in whatever way, and when it wants them dead. `tie` is
/// [`LaunchSpec::tie`](crate::LaunchSpec::tie).
///
/// To be called by a backend, in the worker process, as soon as that leads its process group, and
/// before anything of the user's runs in it; and besides the parent-death signal, for user code
/// cuts that one by accident: the kernel clears it when a process changes its credentials. This tie
/// holds whatever becomes of the worker's user, of its signal dispositions and of its descriptors,
/// for the process keeps none of it. It holds programs that tasks execute as well, as long as they
/// stay in the process group.
///
/// # Errors
/// When the parent is gone or has given this worker up ([`BrokenPipe`](io::ErrorKind::BrokenPipe)):
/// the process is to leave. Other errors are the system's, a sandbox's perhaps; then there is one
/// tie.
pub fn bind_to_parent(tie: OwnedFd) -> io::Result<()> {
    STARTER.store(sys::starter(), Ordering::Relaxed);
    // Before anything is signalled. Where it is refused, the doorbell is left.
    *BELL.lock().unwrap_or_else(PoisonError::into_inner) =
        sys::take_what_was_left(tie.as_fd()).ok();
    *FD_SOCKET.lock().unwrap_or_else(PoisonError::into_inner) =
        sys::take_what_was_left(tie.as_fd()).ok();
    if sys::WAKES_BY_DESCRIPTOR {
        *WAKEUP.lock().unwrap_or_else(PoisonError::into_inner) =
            sys::take_what_was_left(tie.as_fd()).ok();
    }
    sys::be_signalled_by(tie.as_fd(), Signal::KILL.as_raw())?;
    // Closures before that are not reported.
    let is_cut = sys::is_hung_up(tie.as_fd())?;
    if is_cut {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// The process that has started this one, as its number was then; 0: it has not bound itself.
static STARTER: AtomicU32 = AtomicU32::new(0);

/// What this worker rings, until it serves. A worker of a pool inside of a worker has the other
/// one's here until it has bound itself.
static BELL: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The same for the socket by which descriptors come and go.
static FD_SOCKET: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// And for what wakes this worker.
static WAKEUP: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// What the parent has left for this worker to hear while it sleeps, if it needs that.
pub(super) fn take_wakeup() -> Option<OwnedFd> {
    WAKEUP.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the parent has left for this worker to pass descriptors by.
pub(super) fn take_fd_socket() -> Option<OwnedFd> {
    let mut socket = FD_SOCKET.lock().unwrap_or_else(PoisonError::into_inner);
    socket.take()
}

/// What the parent has left for this worker to ring.
pub(super) fn take_bell() -> Option<OwnedFd> {
    BELL.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Asks for the parent-death signal again, which the kernel has cleared if the initializer has
/// changed this process's credentials. It ends the process if the one that started it has died
/// meanwhile, which nothing would report any more.
pub(super) fn bind_again() {
    let starter = STARTER.load(Ordering::Relaxed);
    // A third party's worker may have ties of its own.
    if starter != 0 {
        sys::die_with_starter();
        let now = sys::starter();
        if now != starter && now != 0 {
            sys::leave(0);
        }
    }
}

/// How much sooner than its parent a worker is chosen by the system when memory runs out, as if it
/// held this many thousandths of it more.
const OOM_SCORE: i32 = 300;

/// What every worker does to itself. To be called by a backend, in the worker process, before
/// anything of the user's runs in it.
///
/// - Of a closed pipe it hears by an error, and not by SIGPIPE.
/// - Neither it nor what its tasks start is stopped by the terminal, which belongs to the program
///   and not to a process group in the background: there, to read is an error (EIO) and to write
///   is allowed.
/// - When memory runs out, the system ends it rather than its parent. What its tasks start inherits
///   that. (Nobody needs a privilege for it; where there is no `/proc`, it cannot be had.)
pub fn prepare_process() {
    sys::ignore_signals_of_files();
    sys::raise_oom_score(OOM_SCORE);
}
