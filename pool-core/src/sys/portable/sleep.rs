//! Sleeping. A worker sleeps until something can be read, for no system call that every Unix has
//! lets a process sleep on memory that it shares.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use super::event::{Event, ring_bell, silence};
use crate::sys::{now_ns, poll};

/// Whether a worker needs a descriptor to be woken by.
pub(crate) const WAKES_BY_DESCRIPTOR: bool = true;

/// What a worker hears while it sleeps, and what wakes it.
pub(crate) fn wakeup() -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    Event::new().map(|event| Some(event.into_ends()))
}

/// How often a thread looks that nobody can wake: a worker whose task has closed what wakes it, and
/// whoever waits for a signal handler.
const LOOK: Duration = Duration::from_millis(1);

/// Sleeps while `*word == expected`, until [`wake_sleeper`]; or returns early. `heard` is this
/// end of the [`Event`] by which it is woken.
pub(crate) fn sleep_while(word: &AtomicU32, expected: u32, heard: Option<BorrowedFd<'_>>) {
    let Some(heard) = heard else {
        return wait_for_change(word, expected, LOOK);
    };
    let mut source = [PollFd::from_borrowed_fd(heard, PollFlags::IN)];
    if word.load(Ordering::Acquire) != expected {
        silence(heard);
        return;
    }
    let was_heard = poll(&mut source, None).is_ok() && silence(heard);
    if !was_heard {
        // Whatever it says, the caller looks again; but not all the time, if a task has closed
        // this, or put something else in its place.
        wait_for_change(word, expected, LOOK);
    }
}

/// Wakes the one sleeper on `word`, by the other end of what it hears.
pub(crate) fn wake_sleeper(_word: &AtomicU32, bell: Option<BorrowedFd<'_>>) {
    if let Some(bell) = bell {
        // A worker that cannot be woken is about to be found dead.
        ring_bell(bell);
    }
}

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

/// Whoever waits for a change of this word looks now and then.
pub(crate) fn tell_of_change(_word: &AtomicU32) {}
