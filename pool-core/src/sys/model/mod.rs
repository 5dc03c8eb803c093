//! The operating system for model checkers. Descriptors are real, with all that Linux makes of
//! them; but nobody ever sleeps in the kernel. A thread that would, sleeps on a condition variable
//! of the checker's, which is notified of everything that can make a descriptor readable.

#[cfg(loom)]
mod barrier;
#[cfg(shuttle)]
mod clock;
mod memory;
mod world;

#[cfg(loom)]
pub(crate) use barrier::{Processor, barrier_everywhere, has_barriers, interruption};
#[cfg(shuttle)]
pub(crate) use clock::{Clock, now_ns, park_timeout, processors};
pub(crate) use memory::Mapping;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{OnceLock, PoisonError};
use std::time::{Duration, Instant};

use self::world::{WORLD, kernel};
use super::linux;
use crate::sync::FutexWord;

/// Something may have become readable in a way that this module does not see.
#[cfg(shuttle)]
pub(crate) fn something_happened() {
    let _kernel = kernel();
    WORLD.changed.notify_all();
}

pub(crate) fn sleep_while(word: &FutexWord, expected: u32, _heard: Option<BorrowedFd<'_>>) {
    #[cfg(shuttle)]
    {
        crate::sync::live_or_die();
        word.sleep(expected);
        crate::sync::live_or_die();
    }
    #[cfg(loom)]
    barrier::off_the_processor(|| word.sleep(expected));
}

pub(crate) fn wake_sleeper(word: &FutexWord, _bell: Option<BorrowedFd<'_>>) {
    word.wake();
}

#[cfg(shuttle)]
pub(crate) fn has_barriers() -> bool {
    true
}

pub(crate) fn accept_barriers() -> bool {
    true
}

pub(crate) fn accept_own_barriers() {}

/// Every operation on an atomic is sequentially consistent.
#[cfg(shuttle)]
pub(crate) fn barrier_everywhere() {}

/// Time does not pass.
#[cfg(loom)]
pub(crate) fn now_ns() -> u64 {
    1
}

/// The clock that deadlines are measured by: that of the model.
pub(crate) fn now() -> Instant {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    *BEGIN.get_or_init(Instant::now) + Duration::from_nanos(now_ns())
}

/// See Linux's.
#[derive(Debug)]
pub(crate) struct Poller(linux::Poller);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        linux::Poller::new().map(Self)
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let _kernel = kernel();
        // What is readable already is so for a thread that waits in the poller.
        WORLD.changed.notify_all();
        self.0.add(source, token)
    }

    pub(crate) fn hear_hang_up_alone(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let _kernel = kernel();
        WORLD.changed.notify_all();
        self.0.hear_hang_up_alone(source, token)
    }

    pub(crate) fn add_for_each_change(&self, source: &Event, token: u64) -> io::Result<()> {
        let _kernel = kernel();
        WORLD.changed.notify_all();
        self.0.add_for_each_change(&source.0, token)
    }

    pub(crate) fn add_poller(&self, inner: &Self, token: u64) -> io::Result<()> {
        let _kernel = kernel();
        WORLD.changed.notify_all();
        self.0.add_poller(&inner.0, token)
    }

    pub(crate) fn delete_poller(&self, inner: &Self) -> io::Result<()> {
        let _kernel = kernel();
        self.0.delete_poller(&inner.0)
    }

    pub(crate) fn delete(&self, source: impl AsFd) -> io::Result<()> {
        let _kernel = kernel();
        self.0.delete(source)
    }

    pub(crate) fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        let alarm = Alarm::new(timeout);
        let mut kernel = kernel();
        loop {
            self.0.wait(ready, Some(Duration::ZERO))?;
            if !ready.is_empty() || alarm.is_due() {
                return Ok(());
            }
            let changed = WORLD.changed.wait(kernel);
            kernel = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(shuttle)]
use clock::Alarm;

/// One that goes off at once, as all naps do, or never.
#[cfg(loom)]
struct Alarm(bool);

#[cfg(loom)]
impl Alarm {
    fn new(timeout: Option<Duration>) -> Self {
        Self(timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)))
    }

    fn is_due(&self) -> bool {
        self.0
    }
}

/// See Linux's.
#[derive(Debug)]
pub(crate) struct Event(linux::Event);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        linux::Event::new().map(Self)
    }

    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell()
    }

    pub(crate) fn set(&self) {
        let _kernel = kernel();
        self.0.set();
        WORLD.changed.notify_all();
    }

    pub(crate) fn clear(&self) {
        let _kernel = kernel();
        self.0.clear();
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

pub(crate) fn ring_bell(bell: BorrowedFd<'_>) -> bool {
    let _kernel = kernel();
    let rings = linux::ring_bell(bell);
    WORLD.changed.notify_all();
    rings
}
