//! Sleeping on a word of memory, which other processes may share.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex;
use rustix::time::Timespec;

use crate::sys::unix::now_ns;

/// Whether a worker needs a descriptor to be woken by: see [`wakeup`].
pub(crate) const WAKES_BY_DESCRIPTOR: bool = false;

/// What a worker hears while it sleeps, and what wakes it, where a word of shared memory does not
/// do for both.
pub(crate) fn wakeup() -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    Ok(None)
}

/// Sleeps while `*word == expected`, until [`wake_sleeper`]; or returns early, for signals.
pub(crate) fn sleep_while(word: &AtomicU32, expected: u32, _heard: Option<BorrowedFd<'_>>) {
    // Every error (the value differs, a signal came) means the same to the caller: look again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, None);
}

/// Wakes the one sleeper on `word`, in whatever process.
pub(crate) fn wake_sleeper(word: &AtomicU32, _bell: Option<BorrowedFd<'_>>) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

/// Sleeps until a word is not what is expected any more, or that is over. Not for models.
pub(crate) fn wait_for_change(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().cast_signed(),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // Whatever it says: the caller looks again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, Some(&timeout));
}

/// Sleeps for about so long, without anything that a sandbox refuses which lets threads live.
pub(crate) fn nap(time: Duration) {
    wait_for_change(&AtomicU32::new(0), 0, time);
}

/// Sleeps until a time of the monotonic clock, in nanoseconds. Not for models.
pub(crate) fn sleep_until(time: u64) {
    if time == 0 {
        // It is no time: the clock is not asked.
        return;
    }
    loop {
        let left = time.saturating_sub(now_ns());
        if left == 0 {
            return;
        }
        // A signal may end it early.
        nap(Duration::from_nanos(left));
    }
}

/// Wakes the threads that wait for a change of this word; a signal handler may do that.
pub(crate) fn tell_of_change(word: &AtomicU32) {
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}
