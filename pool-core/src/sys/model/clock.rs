//! Time in models for shuttle. It passes a little with each look at the clock; and when nobody
//! can go on otherwise, it passes until the next alarm.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::world::{WORLD, kernel};
use crate::sync::for_each_run;
use crate::sync::thread::{self, Thread};

/// How much time a look at the clock takes, in nanoseconds.
const LOOK_NS: u64 = 10_000;

/// The time, and the threads that wait for it. (Its lock is none of the model's: nothing happens
/// under it.)
pub(crate) struct Clock {
    now: AtomicU64,
    alarms: std::sync::Mutex<Alarms>,
    longest_wait: AtomicU64,
    processors: AtomicUsize,
}

#[derive(Default)]
struct Alarms {
    due: BTreeMap<(u64, u64), Option<Thread>>,
    last: u64,
    is_over: bool,
}

for_each_run! {
    static ref CLOCK: Clock = Clock {
        now: AtomicU64::new(1_000_000_000),
        alarms: std::sync::Mutex::default(),
        longest_wait: AtomicU64::new(0),
        processors: AtomicUsize::new(1),
    };
}

pub(crate) fn now_ns() -> u64 {
    CLOCK.now.fetch_add(LOOK_NS, Ordering::Relaxed)
}

/// How many processors the model's machine has.
pub(crate) fn processors() -> usize {
    CLOCK.processors.load(Ordering::Relaxed)
}

impl Clock {
    /// Gives the model's machine this many processors.
    pub(crate) fn set_processors(processors: usize) {
        CLOCK.processors.store(processors, Ordering::Relaxed);
    }

    /// The longest time, in nanoseconds, in which everybody slept until an alarm.
    pub(crate) fn longest_wait() -> u64 {
        CLOCK.longest_wait.load(Ordering::Relaxed)
    }

    /// What makes time pass: a thread that the scheduler lets run only when no other can.
    pub(crate) fn run() {
        loop {
            let kernel = kernel();
            let mut alarms = CLOCK.alarms();
            if alarms.is_over {
                return;
            }
            let Some(first) = alarms.due.first_entry() else {
                // Nobody will ever go on. The checker sees that when this thread is gone.
                return;
            };
            let (due, _) = *first.key();
            let sleeper = first.remove();
            drop(alarms);
            let waited = due.saturating_sub(CLOCK.now.load(Ordering::Relaxed));
            CLOCK.now.fetch_add(waited, Ordering::Relaxed);
            CLOCK.longest_wait.fetch_max(waited, Ordering::Relaxed);
            WORLD.changed.notify_all();
            drop(kernel);
            if let Some(sleeper) = sleeper {
                sleeper.unpark();
            }
            thread::spin_loop();
        }
    }

    /// The model is over, and so is time.
    pub(crate) fn stop() {
        CLOCK.alarms().is_over = true;
    }

    fn alarms(&self) -> std::sync::MutexGuard<'_, Alarms> {
        self.alarms.lock().expect("nobody panics with it")
    }
}

/// Wakes a thread at some time.
pub(super) struct Alarm {
    key: Option<(u64, u64)>,
    is_now: bool,
}

impl Alarm {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self::unpark(timeout, None)
    }

    fn unpark(timeout: Option<Duration>, thread: Option<Thread>) -> Self {
        let is_now = timeout == Some(Duration::ZERO);
        let key = timeout.filter(|_| !is_now).map(|timeout| {
            let mut alarms = CLOCK.alarms();
            let due = now_ns().saturating_add(timeout.as_nanos() as u64);
            alarms.last += 1;
            let key = (due, alarms.last);
            alarms.due.insert(key, thread);
            key
        });
        Self { key, is_now }
    }

    pub(super) fn is_due(&self) -> bool {
        let now = CLOCK.now.load(Ordering::Relaxed);
        self.is_now || self.key.is_some_and(|(due, _)| due <= now)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            CLOCK.alarms().due.remove(key);
        }
    }
}

/// As the standard library's: until it is unparked, or the time is over, or without a reason.
pub(crate) fn park_timeout(timeout: Duration) {
    let alarm = Alarm::unpark(Some(timeout), Some(thread::current()));
    if !alarm.is_due() {
        thread::park();
    }
}
