//! Waiting for many descriptors with `poll`, in the manner of an epoll instance.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, fcntl_getfd};

use super::event::{Event, silence};
use super::sleep::nap;
use crate::sys::{failed, poll};

/// Descriptors, each with a `token` that comes back as long as its source is ready, unless it says
/// otherwise.
///
/// Sources come and go by any thread. One thread at a time sleeps here; others may look, with a
/// timeout of zero.
#[derive(Debug)]
pub(crate) struct Poller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Mutex<Vec<Source>>,
    /// Wakes who sleeps here: the sources are others.
    changed: Event,
    /// Those that this one is a source of.
    outer: Mutex<Vec<Weak<Inner>>>,
}

#[derive(Debug, Clone)]
struct Source {
    token: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Whether this is readable, or hung up.
    Readable(RawFd),
    /// Whether it is hung up.
    HungUp(RawFd),
    /// Each time that it has been rung.
    Rung(RawFd),
    /// Whether a source of that one is ready.
    Poller(Arc<Inner>),
}

/// What is waited for, and what for.
#[derive(Debug, Default)]
struct Watched {
    sources: Vec<(RawFd, PollFlags, Reason)>,
}

#[derive(Debug, Clone, Copy)]
enum Reason {
    Changed,
    /// That of this poller with this token.
    Source(u64),
    /// One of a poller with this token.
    Inner(u64),
}

/// What a wait has come upon.
#[derive(Debug, Default)]
struct Seen {
    /// Sources that are ready, or were.
    ready: Vec<(RawFd, u64)>,
    /// Tokens of pollers with such.
    inner: Vec<u64>,
    /// The sources are others by now.
    changed: bool,
    /// A source is closed, or was.
    closed: bool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let poller = Self(Arc::new(Inner {
            sources: Mutex::default(),
            changed: Event::new()?,
            outer: Mutex::default(),
        }));
        // Whether one can wait is known here, where the error has somewhere to go.
        poller.wait(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(poller)
    }

    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.insert(token, What::Readable(source.as_fd().as_raw_fd()))
    }

    /// Of a source that was added, only this is of interest from now on: the other end is closed.
    pub(crate) fn hear_hang_up_alone(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.delete(&source)?;
        self.insert(token, What::HungUp(source.as_fd().as_raw_fd()))
    }

    /// Watches for each ring of an event. Whoever is given the token has to act on it: it does not
    /// come again.
    pub(crate) fn add_for_each_change(&self, source: &Event, token: u64) -> io::Result<()> {
        self.insert(token, What::Rung(source.as_fd().as_raw_fd()))
    }

    pub(crate) fn delete(&self, source: impl AsFd) -> io::Result<()> {
        let number = source.as_fd().as_raw_fd();
        self.remove(|what| what.descriptor() == Some(number))
    }

    /// Watches whether another poller has something. It must not have this one.
    pub(crate) fn add_poller(&self, inner: &Self, token: u64) -> io::Result<()> {
        let outer = Arc::downgrade(&self.0);
        lock(&inner.0.outer).push(outer);
        self.insert(token, What::Poller(inner.0.clone()))
    }

    pub(crate) fn delete_poller(&self, inner: &Self) -> io::Result<()> {
        let outer = Arc::as_ptr(&self.0);
        lock(&inner.0.outer).retain(|it| it.as_ptr() != outer);
        self.remove(|what| matches!(what, What::Poller(it) if Arc::ptr_eq(it, &inner.0)))
    }

    fn insert(&self, token: u64, what: What) -> io::Result<()> {
        let mut sources = lock(&self.0.sources);
        if let Some(number) = what.descriptor()
            && sources
                .iter()
                .any(|it| it.what.descriptor() == Some(number))
        {
            return Err(failed("poll")(Errno::EXIST));
        }
        sources.push(Source { token, what });
        drop(sources);
        self.0.tell();
        Ok(())
    }

    fn remove(&self, is_it: impl Fn(&What) -> bool) -> io::Result<()> {
        let mut sources = lock(&self.0.sources);
        let found = sources.iter().position(|it| is_it(&it.what));
        let found = found.ok_or_else(|| failed("poll")(Errno::NOENT))?;
        sources.swap_remove(found);
        drop(sources);
        self.0.tell();
        Ok(())
    }

    /// Waits until a source is readable (or hung up) and puts the tokens into `ready`, which is
    /// left empty when the time is over or a signal came.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let sleeps = timeout != Some(Duration::ZERO);
        loop {
            let mut watched = Watched::default();
            let changed = self.0.changed.as_fd().as_raw_fd();
            let wakes = if sleeps {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            watched.push(changed, wakes, Reason::Changed);
            watched.push_all(&lock(&self.0.sources));
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let seen = watched.wait(left)?;
            self.0.tell_ready(&seen, ready);
            if seen.changed {
                // First silenced and looked at then: what changes after that is heard.
                self.0.changed.clear();
            }
            if seen.closed {
                self.0.forget_closed();
            }
            let is_over = left == Some(Duration::ZERO) || !ready.is_empty();
            if is_over || !(seen.changed || seen.closed) {
                return Ok(());
            }
        }
    }
}

impl Inner {
    /// Gives the tokens of sources that are ready, and are sources still: the number of one that
    /// has left may be another one's by now.
    fn tell_ready(&self, seen: &Seen, ready: &mut Vec<u64>) {
        // As long as this is locked, no source leaves, and so none is closed.
        let sources = lock(&self.sources);
        for (number, token) in &seen.ready {
            let is_it = |it: &&Source| it.token == *token && it.what.descriptor() == Some(*number);
            let Some(source) = sources.iter().find(is_it) else {
                continue;
            };
            if let What::Rung(number) = source.what {
                // SAFETY: it is an event's end, whose owner takes it out of here before closing it.
                silence(unsafe { BorrowedFd::borrow_raw(number) });
            }
            ready.push(*token);
        }
        drop(sources);
        ready.extend(&seen.inner);
        ready.sort_unstable();
        ready.dedup();
    }

    /// A source that is closed leaves, as it leaves an epoll instance.
    fn forget_closed(&self) {
        lock(&self.sources).retain(|source| match &source.what {
            What::Poller(inner) => {
                inner.forget_closed();
                true
            }
            What::Readable(number) | What::HungUp(number) | What::Rung(number) => {
                // SAFETY: nothing is done with it but to ask the system whether it is open.
                fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*number) }).is_ok()
            }
        });
    }

    /// Wakes those who sleep on sources that are not all any more.
    fn tell(&self) {
        self.changed.set();
        let outer = lock(&self.outer).clone();
        for outer in outer.iter().filter_map(Weak::upgrade) {
            outer.tell();
        }
    }
}

impl What {
    fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Readable(number) | Self::HungUp(number) | Self::Rung(number) => Some(*number),
            Self::Poller(_) => None,
        }
    }
}

impl Watched {
    fn push(&mut self, number: RawFd, flags: PollFlags, reason: Reason) {
        self.sources.push((number, flags, reason));
    }

    fn push_all(&mut self, sources: &[Source]) {
        for Source { token, what } in sources {
            let flags = match what {
                // A hang-up is reported whatever is asked for.
                What::HungUp(_) => PollFlags::empty(),
                _ => PollFlags::IN,
            };
            match (what, what.descriptor()) {
                (_, Some(number)) => self.push(number, flags, Reason::Source(*token)),
                (What::Poller(inner), _) => {
                    let mut of_inner = Self::default();
                    of_inner.push_all(&lock(&inner.sources));
                    let of_inner = of_inner.sources.into_iter();
                    self.sources.extend(
                        of_inner.map(|(number, flags, _)| (number, flags, Reason::Inner(*token))),
                    );
                }
                (_, None) => {}
            }
        }
    }

    /// Asks the system until one of these is ready.
    fn wait(&self, left: Option<Duration>) -> io::Result<Seen> {
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().min(i32::MAX as u64) as _,
            tv_nsec: left.subsec_nanos().into(),
        });
        let asked = self.sources.iter().map(|(number, flags, _)| {
            // SAFETY: nothing is done with it but to ask the system, which says so if it is closed
            // by now: the sources change meanwhile.
            let source = unsafe { BorrowedFd::borrow_raw(*number) };
            PollFd::from_borrowed_fd(source, *flags)
        });
        let mut asked: Vec<PollFd<'_>> = asked.collect();
        match poll(&mut asked, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // More than this process may have open, since its limit was lowered.
            Err(Errno::INVAL) if asked.len() > 1 => ask_each(&mut asked, left.as_ref())?,
            Err(errno) => return Err(failed("poll")(errno)),
        }
        let mut seen = Seen::default();
        for (answer, (number, _, reason)) in asked.iter().zip(&self.sources) {
            let answer = answer.revents();
            match reason {
                _ if answer.is_empty() => {}
                Reason::Changed if answer.contains(PollFlags::NVAL) => {
                    return Err(failed("poll")(Errno::BADF));
                }
                _ if answer.contains(PollFlags::NVAL) => seen.closed = true,
                Reason::Changed => seen.changed = true,
                Reason::Source(token) => seen.ready.push((*number, *token)),
                Reason::Inner(token) => seen.inner.push(*token),
            }
        }
        Ok(seen)
    }
}

/// Asks the system of one after the other, now and then, until one is ready.
fn ask_each(asked: &mut [PollFd<'_>], left: Option<&Timespec>) -> io::Result<()> {
    const NAP: Duration = Duration::from_millis(1);
    let end = left.map(|left| {
        let (seconds, rest) = (left.tv_sec.unsigned_abs(), left.tv_nsec.unsigned_abs());
        Instant::now() + Duration::new(seconds, rest as u32)
    });
    loop {
        let mut count = 0;
        for one in asked.chunks_mut(1) {
            match poll(one, Some(&Timespec::default())) {
                Ok(ready) => count += ready,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("poll")(errno)),
            }
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if count > 0 || left == Some(Duration::ZERO) {
            return Ok(());
        }
        nap(left.map_or(NAP, |left| left.min(NAP)));
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn look(poller: &Poller) -> Vec<u64> {
        let mut ready = Vec::new();
        let looked = poller.wait(&mut ready, Some(Duration::ZERO));
        looked.expect("it can be looked at");
        ready.sort_unstable();
        ready
    }

    fn event() -> Event {
        Event::new().expect("descriptors")
    }

    #[test]
    fn a_token_comes_as_long_as_its_source_is_ready() {
        let (poller, one, other) = (Poller::new().unwrap(), event(), event());
        poller.add(&one, 1).expect("room for it");
        poller.add(&other, 2).expect("room for it");
        poller.add(&one, 3).expect_err("it is there");
        one.set();
        assert_eq!((look(&poller), look(&poller)), (vec![1], vec![1]));
        other.set();
        assert_eq!(look(&poller), [1, 2]);
        poller.delete(&one).expect("it is there");
        poller.delete(&one).expect_err("it is not there any more");
        assert_eq!(look(&poller), [2]);
        other.clear();
        assert_eq!(look(&poller), []);
    }

    #[test]
    fn each_ring_is_told_once() {
        let (poller, bell) = (Poller::new().unwrap(), event());
        poller.add_for_each_change(&bell, 7).expect("room for it");
        for _ in 0..3 {
            bell.set();
            assert_eq!((look(&poller), look(&poller)), (vec![7], vec![]));
        }
    }

    #[test]
    fn a_hang_up_is_told_and_nothing_else() {
        let (poller, (heard, bell)) = (Poller::new().unwrap(), event().into_ends());
        poller.add(&heard, 1).expect("room for it");
        poller.hear_hang_up_alone(&heard, 2).expect("it is there");
        super::super::ring_bell(bell.as_fd());
        assert_eq!(look(&poller), []);
        drop(bell);
        assert_eq!(look(&poller), [2]);
    }

    #[test]
    fn a_poller_in_another_keeps_its_rings() {
        let (inner, outer, bell) = (Poller::new().unwrap(), Poller::new().unwrap(), event());
        inner.add_for_each_change(&bell, 1).expect("room for it");
        outer.add_poller(&inner, 9).expect("room for it");
        assert_eq!(look(&outer), []);
        bell.set();
        assert_eq!((look(&outer), look(&outer)), (vec![9], vec![9]));
        assert_eq!((look(&inner), look(&outer)), (vec![1], vec![]));
        bell.set();
        outer.delete_poller(&inner).expect("it is there");
        assert_eq!((look(&outer), look(&inner)), (vec![], vec![1]));
    }

    #[test]
    fn who_sleeps_hears_of_a_source_that_is_added() {
        let (inner, outer) = (Poller::new().unwrap(), Poller::new().unwrap());
        outer.add_poller(&inner, 9).expect("room for it");
        for (sleeps_in, adds_to, token) in [(&inner, &inner, 1), (&outer, &inner, 9)] {
            let set = event();
            set.set();
            thread::scope(|scope| {
                let asleep = scope.spawn(|| {
                    let mut ready = Vec::new();
                    while ready.is_empty() {
                        sleeps_in.wait(&mut ready, None).expect("it can wait");
                    }
                    ready
                });
                adds_to.add(&set, 1).expect("room for it");
                assert_eq!(asleep.join().expect("no panic"), [token]);
            });
            adds_to.delete(&set).expect("it is there");
        }
    }

    #[test]
    fn a_source_that_is_closed_leaves() {
        let (poller, event) = (Poller::new().unwrap(), event());
        let number = event.as_fd().as_raw_fd();
        poller.add(&event, 1).expect("room for it");
        drop(event);
        // Other tests open descriptors, so it may be somebody else's by now.
        let (mut ready, time) = (Vec::new(), Duration::from_millis(20));
        poller.wait(&mut ready, Some(time)).expect("it can wait");
        let left = lock(&poller.0.sources).len();
        // SAFETY: only asked whether it is open.
        let reused = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok();
        assert!(left == 0 || reused, "{left}");
    }

    /// A wait has seen the number of a source that has left since. It is an event's by now, whose
    /// ring must be there for whoever waits for that one.
    #[test]
    fn a_number_that_is_another_ones_by_now_keeps_its_ring() {
        let (poller, bell) = (Poller::new().unwrap(), event());
        let number = bell.as_fd().as_raw_fd();
        let seen = Seen {
            ready: vec![(number, 1)],
            ..Seen::default()
        };
        bell.set();
        let mut ready = Vec::new();
        poller.0.tell_ready(&seen, &mut ready);
        poller.add_for_each_change(&bell, 2).expect("room for it");
        poller.0.tell_ready(&seen, &mut ready);
        assert_eq!((ready, look(&poller)), (vec![], vec![2]));
    }

    #[test]
    fn time_ends_a_wait() {
        let poller = Poller::new().unwrap();
        let (mut ready, start) = (Vec::new(), Instant::now());
        let time = Duration::from_millis(20);
        poller.wait(&mut ready, Some(time)).expect("it can wait");
        assert!(start.elapsed() >= time && ready.is_empty());
    }
}
