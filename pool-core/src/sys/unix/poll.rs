//! Waiting for descriptors, also where the kernel or a sandbox refuses the newest call for that.
//!
//! `ppoll` knows nanoseconds. What it is replaced by, where it is refused, knows milliseconds;
//! these are rounded up, for nothing may come too early.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, Timespec};
use rustix::io::Errno;

use crate::sys::refused::is_refusal;

/// A call that is not made again once it was refused.
#[derive(Debug)]
pub(in crate::sys) struct Poll {
    ppoll_is_refused: AtomicBool,
}

/// Makes the call unless it was refused before. `None`: there must be another way.
pub(in crate::sys) fn unless_refused<T>(
    refused: &AtomicBool,
    call: impl FnOnce() -> Result<T, Errno>,
) -> Option<Result<T, Errno>> {
    if refused.load(Ordering::Relaxed) {
        return None;
    }
    match call() {
        Err(errno) if is_refusal(errno) => {
            refused.store(true, Ordering::Relaxed);
            None
        }
        outcome => Some(outcome),
    }
}

/// Waits until one of these is ready: `rustix::event::poll`, also where only the older call is
/// allowed.
///
/// # Errors
/// Those of `ppoll` and `poll`. A signal that comes is one of them.
pub fn poll(sources: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    POLL.poll(sources, timeout)
}

static POLL: Poll = Poll::new(false);

impl Poll {
    pub(in crate::sys) const fn new(ppoll_is_refused: bool) -> Self {
        Self {
            ppoll_is_refused: AtomicBool::new(ppoll_is_refused),
        }
    }

    pub(in crate::sys) fn poll(
        &self,
        sources: &mut [PollFd<'_>],
        timeout: Option<&Timespec>,
    ) -> Result<usize, Errno> {
        let newest = || rustix::event::poll(sources, timeout);
        if let Some(outcome) = unless_refused(&self.ppoll_is_refused, newest) {
            return outcome;
        }
        const { assert!(size_of::<PollFd<'_>>() == size_of::<libc::pollfd>()) };
        let number = libc::nfds_t::try_from(sources.len()).map_err(|_| Errno::INVAL)?;
        // SAFETY: rustix's type is the kernel's `pollfd`, to which it hands it just so, with a
        // lifetime.
        count(unsafe { libc::poll(sources.as_mut_ptr().cast(), number, round_up(timeout)) })
    }
}

/// What a call of the C library's says.
pub(in crate::sys) fn count(outcome: c_int) -> Result<usize, Errno> {
    usize::try_from(outcome).map_err(|_| {
        let error = io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

/// In milliseconds; -1 stands for no limit. A wait for longer than these can say ends early,
/// finds that it is, and waits again.
pub(in crate::sys) fn round_up(timeout: Option<&Timespec>) -> c_int {
    let Some(timeout) = timeout else { return -1 };
    let seconds = Duration::from_secs(timeout.tv_sec.try_into().unwrap_or(0));
    let rest = Duration::from_nanos(timeout.tv_nsec.try_into().unwrap_or(0));
    let milliseconds = (seconds + rest).as_nanos().div_ceil(1_000_000);
    c_int::try_from(milliseconds).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_refused_is_not_made_again() {
        let refused = AtomicBool::new(false);
        let mut calls = 0;
        let mut ask = |outcome| {
            let call = || {
                calls += 1;
                outcome
            };
            unless_refused(&refused, call)
        };
        assert_eq!(ask(Ok(1)), Some(Ok(1)));
        assert_eq!(ask(Err(Errno::INTR)), Some(Err(Errno::INTR)));
        assert_eq!(ask(Err(Errno::PERM)), None);
        assert_eq!(ask(Ok(1)), None);
        assert_eq!(calls, 3);
    }

    #[test]
    fn times_are_rounded_up() {
        let in_milliseconds = |time: Duration| {
            let time = Timespec::try_from(time).expect("it is no longer than a lifetime");
            round_up(Some(&time))
        };
        assert_eq!(round_up(None), -1);
        assert_eq!(in_milliseconds(Duration::ZERO), 0);
        assert_eq!(in_milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(in_milliseconds(Duration::from_millis(5)), 5);
        assert_eq!(in_milliseconds(Duration::from_nanos(5_000_001)), 6);
        assert_eq!(in_milliseconds(Duration::from_secs(1 << 40)), c_int::MAX);
    }
}
