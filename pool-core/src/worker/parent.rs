//! What ties a worker to its parent.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use crate::sys;

/// Where the tie is kept: out of the way of code that closes the first few descriptors, and no
/// further up than a small table of descriptors reaches.
const PLACE: i32 = 200;

/// Ties this process, and all of its process group, to the parent: from now on the kernel kills
/// them when the parent ends, in whatever way, and when it wants them dead. `tie` is
/// [`LaunchSpec::tie`](crate::LaunchSpec::tie).
///
/// To be called by a backend, in the worker process, as soon as that leads its process group, and
/// before anything of the user's runs in it; and besides the parent-death signal, for user code
/// cuts either by accident. This tie holds whatever becomes of the worker's user and of its signal
/// dispositions. It ends when all copies of the descriptor are closed, and is therefore kept under
/// a high number, for the rest of the process's life. Programs that tasks execute do not inherit
/// it; they are in the process group.
///
/// # Errors
/// When the parent is gone or has given this worker up ([`BrokenPipe`](io::ErrorKind::BrokenPipe)):
/// the process is to leave. Other errors are the system's, a sandbox's perhaps; then there is one
/// tie.
pub fn bind_to_parent(tie: OwnedFd) -> io::Result<()> {
    let tie = sys::move_up(tie, PLACE);
    sys::die_by(tie.as_fd())?;
    // What was there before is not told.
    let is_cut = sys::is_hung_up(tie.as_fd())?;
    let _for_good = tie.into_raw_fd();
    if is_cut {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}
