//! Waiting in an epoll instance, also where the kernel or a sandbox refuses the newest call for
//! that: `epoll_pwait2` (Linux 5.11) knows nanoseconds, what it is replaced by milliseconds.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::AtomicBool;

use nix::libc;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;

use crate::sys::refused::failed;
use crate::sys::unix::{Poll, count, round_up, unless_refused};

/// How many events are taken at once.
const EVENTS: usize = 64;

/// Calls that were refused once, and are not made again.
#[derive(Debug)]
struct Refused {
    epoll_pwait2: AtomicBool,
    epoll_wait: AtomicBool,
    poll: Poll,
}

static REFUSED: Refused = Refused {
    epoll_pwait2: AtomicBool::new(false),
    epoll_wait: AtomicBool::new(false),
    poll: Poll::new(false),
};

/// Waits until something in an epoll instance is ready, and adds the tokens. A signal ends the wait
/// as well.
///
/// # Errors
/// They name the call. One that is no refusal cannot happen with a descriptor that is an epoll
/// instance.
pub(super) fn wait_in_epoll(
    instance: BorrowedFd<'_>,
    ready: &mut Vec<u64>,
    timeout: Option<&Timespec>,
) -> io::Result<()> {
    REFUSED.wait_in_epoll(instance, ready, timeout)
}

impl Refused {
    fn wait_in_epoll(
        &self,
        instance: BorrowedFd<'_>,
        ready: &mut Vec<u64>,
        timeout: Option<&Timespec>,
    ) -> io::Result<()> {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; EVENTS];
        let newest = || epoll::wait(instance, &mut events[..], timeout);
        match unless_refused(&self.epoll_pwait2, newest) {
            Some(Ok(count)) => {
                ready.extend(events[..count].iter().map(|event| event.data.u64()));
                Ok(())
            }
            Some(Err(Errno::INTR)) => Ok(()),
            Some(Err(errno)) => Err(failed("epoll_pwait2")(errno)),
            None => self.wait_by_older_calls(instance, ready, timeout),
        }
    }

    #[cold]
    fn wait_by_older_calls(
        &self,
        instance: BorrowedFd<'_>,
        ready: &mut Vec<u64>,
        timeout: Option<&Timespec>,
    ) -> io::Result<()> {
        let mut milliseconds = round_up(timeout);
        if timeout.is_some_and(|timeout| timeout.tv_nsec % 1_000_000 != 0) {
            // An epoll instance can be waited for like any other descriptor, by the nanosecond.
            let mut source = [PollFd::from_borrowed_fd(instance, PollFlags::IN)];
            match self.poll.poll(&mut source, timeout) {
                Ok(_) => milliseconds = 0,
                Err(Errno::INTR) => return Ok(()),
                // Somewhat later, then.
                Err(_) => {}
            }
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let (to, room) = (events.as_mut_ptr(), EVENTS as c_int);
        let instance = instance.as_raw_fd();
        let wait = |with_mask: bool| {
            // SAFETY: the kernel writes at most this many events, for which there is room. The
            // signal mask is left alone.
            count(unsafe {
                if with_mask {
                    libc::epoll_pwait(instance, to, room, milliseconds, ptr::null())
                } else {
                    libc::epoll_wait(instance, to, room, milliseconds)
                }
            })
        };
        let outcome =
            unless_refused(&self.epoll_wait, || wait(false)).unwrap_or_else(|| wait(true));
        match outcome {
            Ok(count) => ready.extend(events[..count].iter().map(|event| event.u64)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("epoll_pwait2, epoll_wait and epoll_pwait")(errno)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// Every combination of refusals that leaves a way.
    fn ways() -> impl Iterator<Item = Refused> {
        (0..8_u32).map(|bits| Refused {
            epoll_pwait2: AtomicBool::new(bits & 1 != 0),
            epoll_wait: AtomicBool::new(bits & 2 != 0),
            poll: Poll::new(bits & 4 != 0),
        })
    }

    #[test]
    fn every_way_tells_what_is_ready() {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an instance");
        let mut events = Vec::new();
        for token in 1..=100 {
            let event = eventfd(1, EventfdFlags::CLOEXEC).expect("an event");
            let data = epoll::EventData::new_u64(token);
            epoll::add(&instance, &event, data, epoll::EventFlags::IN).expect("room for it");
            events.push(event);
        }
        for way in ways() {
            for timeout in [None, Some(Duration::ZERO), Some(Duration::from_micros(50))] {
                let timeout = timeout.map(|time| Timespec::try_from(time).expect("it is short"));
                let mut ready = vec![7];
                let waited = way.wait_in_epoll(instance.as_fd(), &mut ready, timeout.as_ref());
                waited.expect("something is ready");
                assert_eq!(ready.len(), 1 + EVENTS, "{way:?}");
                assert!(ready[1..].iter().all(|token| (1..=100).contains(token)));
                let mut sources = [PollFd::new(&instance, PollFlags::IN)];
                assert_eq!(
                    way.poll.poll(&mut sources, timeout.as_ref()),
                    Ok(1),
                    "{way:?}"
                );
                assert_eq!(sources[0].revents(), PollFlags::IN, "{way:?}");
            }
        }
    }

    #[test]
    fn no_way_comes_too_early() {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an instance");
        for way in ways() {
            for time in [1, 50_000, 1_000_000, 1_000_001].map(Duration::from_nanos) {
                let timeout = Timespec::try_from(time).expect("it is short");
                let (mut ready, start) = (Vec::new(), Instant::now());
                while start.elapsed() < time {
                    let before = Instant::now();
                    let waited = way.wait_in_epoll(instance.as_fd(), &mut ready, Some(&timeout));
                    waited.expect("it is an instance");
                    assert!(ready.is_empty());
                    assert!(before.elapsed() >= time, "{way:?} after {time:?}");
                }
                let (mut sources, start) =
                    ([PollFd::new(&instance, PollFlags::IN)], Instant::now());
                assert_eq!(
                    way.poll.poll(&mut sources, Some(&timeout)),
                    Ok(0),
                    "{way:?}"
                );
                assert!(start.elapsed() >= time, "{way:?} after {time:?}");
            }
        }
    }
}
