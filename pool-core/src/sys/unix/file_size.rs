//! The limit of file sizes (`ulimit -f`), which counts for memory files, too.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use rustix::io::Errno;

use crate::sys::refused::errno_of;

/// Runs what writes or grows a file. Where that would exceed the limit of file sizes, it fails, and
/// that is all: the kernel also sends the thread SIGXFSZ, which would end the program before
/// anybody can be given the error.
pub(crate) fn without_size_signal<T>(grow: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let mut signal = SigSet::empty();
    signal.add(Signal::SIGXFSZ);
    let before = signal.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    // One that waited before is somebody else's.
    let waited = is_waiting();
    let grown = grow();
    let is_sent = matches!(&grown, Err(error) if errno_of(error) == Some(Errno::FBIG));
    // A thread that cannot take the signal back keeps it blocked, and lives.
    if (!is_sent || waited || take_back(&signal))
        && let Ok(before) = before
        && !before.contains(Signal::SIGXFSZ)
    {
        let _ = signal.thread_unblock();
    }
    grown
}

/// Whether the signal waits for this thread to let it through.
fn is_waiting() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: the set is written if the call succeeds, and read only then.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), libc::SIGXFSZ) == 1
    }
}

/// Takes the signal away that waits for this thread. `false`: nobody says whether there is one.
#[cfg(target_vendor = "apple")]
fn take_back(signal: &SigSet) -> bool {
    // It is this thread's, and blocked, so that nobody else takes it.
    !is_waiting() || signal.wait().is_ok()
}

/// Takes the signal away that waits for this thread. `false`: nobody says whether there is one.
#[cfg(not(target_vendor = "apple"))]
fn take_back(signal: &SigSet) -> bool {
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        // SAFETY: both are read only, and details of the signal are not asked for.
        let taken =
            unsafe { libc::sigtimedwait(signal.as_ref(), std::ptr::null_mut(), &raw const now) };
        match Errno::from_io_error(&io::Error::last_os_error()) {
            _ if taken >= 0 => return true,
            Some(Errno::AGAIN) => return true,
            Some(Errno::INTR) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::pthread::{pthread_kill, pthread_self};

    use super::*;

    fn blocks() -> bool {
        let mask = SigSet::thread_get_mask().expect("there is one");
        mask.contains(Signal::SIGXFSZ)
    }

    /// What the kernel does where the limit is reached.
    fn too_large() -> io::Result<()> {
        pthread_kill(pthread_self(), Signal::SIGXFSZ).expect("this thread lives");
        Err(Errno::FBIG.into())
    }

    #[test]
    fn the_signal_that_comes_with_the_error_is_taken_back() {
        without_size_signal(too_large).expect_err("it is too large");
        assert!(!blocks() && !is_waiting());
        without_size_signal(|| Ok(())).expect("nothing is too large");
        assert!(!blocks());
    }

    #[test]
    fn what_the_program_has_blocked_stays_so() {
        let mut signal = SigSet::empty();
        signal.add(Signal::SIGXFSZ);
        signal.thread_block().expect("a signal that can be blocked");
        without_size_signal(too_large).expect_err("it is too large");
        assert!(blocks() && !is_waiting());
        // One of the program's own.
        let _ = too_large();
        without_size_signal(too_large).expect_err("it is too large");
        assert!(blocks() && is_waiting());
        assert!(take_back(&signal) && !is_waiting());
    }
}
