//! What few calls ask for: when they end, and how.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sys;

/// When a call ends that has not ended by itself: what [`Call::deadline`](crate::Call::deadline)
/// takes. It is made of a `Duration`, which counts from when the call is made, or of an `Instant`.
///
/// ```
/// # use procpool_core as procpool;
/// use std::time::{Duration, Instant};
/// use procpool::Deadline;
///
/// assert_eq!(Deadline::from(Duration::from_secs(2)), Deadline::After(Duration::from_secs(2)));
/// let now = Instant::now();
/// assert_eq!(Deadline::from(now), Deadline::At(now));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// So long after the call was made.
    After(Duration),
    /// At this time.
    At(Instant),
}

impl From<Duration> for Deadline {
    fn from(after: Duration) -> Self {
        Self::After(after)
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Self {
        Self::At(at)
    }
}

/// What all chunks of a call share that asks for one of these.
#[derive(Debug, Default)]
pub(crate) struct CallControl {
    /// When the call ends, in nanoseconds of the monotonic clock.
    pub(crate) deadline: Option<u64>,
    /// How long what runs has to end after it was asked to, in nanoseconds.
    pub(crate) grace: Option<u64>,
    /// Chunks of a higher one go first; 0 is that of a call without.
    pub(crate) priority: i32,
    /// What it is called by those who observe it.
    pub(crate) name: Option<Arc<str>>,
}

impl CallControl {
    /// Of a call that is made now. `None`: it asks for none of these.
    pub(crate) fn new(
        deadline: Option<Deadline>,
        grace: Option<Duration>,
        priority: i32,
        name: Option<Arc<str>>,
    ) -> Option<Arc<Self>> {
        let is_asked = deadline.is_some() || grace.is_some() || priority != 0 || name.is_some();
        is_asked.then(|| {
            let left = deadline.map(|deadline| match deadline {
                Deadline::After(after) => after,
                Deadline::At(at) => at.saturating_duration_since(sys::now()),
            });
            Arc::new(Self {
                deadline: left.map(|left| sys::now_ns() + nanoseconds(left)),
                grace: grace.map(nanoseconds),
                priority,
                name,
            })
        })
    }

    /// Whether it is for the pool, and not just a name.
    pub(crate) fn is_special(&self) -> bool {
        self.deadline.is_some() || self.grace.is_some() || self.priority != 0
    }

    /// How much time is left until the deadline.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let left = self.deadline?.saturating_sub(sys::now_ns());
        Some(Duration::from_nanos(left))
    }
}

/// What is longer than centuries is cut, so that it can be added to any time.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ns.min(u64::MAX / 4)
}
