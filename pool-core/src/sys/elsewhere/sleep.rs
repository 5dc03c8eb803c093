//! Sleeping.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::clock::now_ns;
use super::fd::{BorrowedFd, OwnedFd};
use super::missing::missing;

pub(crate) const WAKES_BY_DESCRIPTOR: bool = true;

/// How often somebody looks whom nobody wakes.
const LOOK: Duration = Duration::from_millis(1);

pub(crate) fn wakeup() -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    Err(missing("a wakeup"))
}

pub(crate) fn sleep_while(word: &AtomicU32, expected: u32, _heard: Option<BorrowedFd<'_>>) {
    wait_for_change(word, expected, LOOK);
}

pub(crate) fn wake_sleeper(_word: &AtomicU32, _bell: Option<BorrowedFd<'_>>) {}

/// Waits until a word is not what is expected any more, or that is over.
pub(crate) fn wait_for_change(word: &AtomicU32, expected: u32, timeout: Duration) {
    let end = now_ns().saturating_add(timeout.as_nanos().try_into().unwrap_or(u64::MAX));
    while word.load(Ordering::Acquire) == expected {
        let left = end.saturating_sub(now_ns());
        if left == 0 {
            return;
        }
        nap(Duration::from_nanos(left).min(LOOK));
    }
}

/// Sleeps for about so long.
#[allow(
    clippy::disallowed_methods,
    reason = "it is what everything else sleeps by"
)]
pub(crate) fn nap(time: Duration) {
    thread::sleep(time);
}

/// Sleeps until a time of the monotonic clock, in nanoseconds.
pub(crate) fn sleep_until(time: u64) {
    if time == 0 {
        // It is no time: the clock is not asked.
        return;
    }
    while let left @ 1.. = time.saturating_sub(now_ns()) {
        nap(Duration::from_nanos(left));
    }
}
