//! The options of one call.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::call_control::{CallControl, Deadline, nanoseconds};
use super::context::Context;
use super::retry_rules::RetryRules;
use super::target::Target;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::sys;

/// See [`Call`](crate::Call).
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) chunksize: Option<usize>,
    pub(crate) buffer: Option<usize>,
    pub(crate) is_measured: bool,
    /// What ordinary calls are without, so that they do not move it about.
    pub(crate) special: Option<Box<SpecialOptions>>,
}

/// Options that few calls have.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialOptions {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) grace: Option<Duration>,
    pub(crate) priority: i32,
    /// See [`Call::name`](crate::Call::name).
    pub(crate) name: Option<Arc<str>>,
    /// A result that is an `Err` counts as a failure.
    pub(crate) counts_errors: bool,
    /// The worker that is to run the items.
    pub(crate) target: Option<Target>,
    /// What the function gets with each item, or why it cannot.
    pub(crate) context: Option<Result<Arc<Context>, TaskError>>,
    /// Which items are tried again, and when.
    pub(crate) retry: Option<RetryRules>,
}

/// What a call asks for, as far as the executor is to see to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChunkOptions {
    /// How long each item may run. One that runs longer ends with an error of kind
    /// [`TimedOut`](crate::TaskErrorKind::TimedOut); an executor that cannot end it lets it run.
    pub timeout: Option<Duration>,
    /// How often an item is tried again whose worker died or that ran too long.
    pub retries: u32,
    /// How much time the call has left: see [`Call::deadline`](crate::Call::deadline). It is that
    /// of the moment at which this was asked for.
    pub deadline: Option<Duration>,
    /// How long an item that is to end has after it was asked to, before it is killed: see
    /// [`Call::grace`](crate::Call::grace).
    pub grace: Option<Duration>,
    /// What is higher goes first: see [`Call::priority`](crate::Call::priority).
    pub priority: i32,
    /// How long the items are not to begin, from the moment at which this was asked for: see
    /// [`Call::backoff`](crate::Call::backoff).
    pub delay: Duration,
    /// Each item is to be measured: see [`Call::measured`](crate::Call::measured).
    pub measured: bool,
    /// The item emits values, of which so many may be unread: see
    /// [`Call::stream`](crate::Call::stream).
    pub emits: Option<u32>,
}

impl ChunkOptions {
    /// What a chunk has of this that comes from elsewhere, from now on, and is of a call with this
    /// name.
    pub(crate) fn control(&self, name: Option<Arc<str>>) -> Option<Arc<CallControl>> {
        CallControl::new(
            self.deadline.map(Deadline::After),
            self.grace,
            self.priority,
            name,
        )
    }

    /// When such a chunk may begin, in nanoseconds of the monotonic clock; 0: at once.
    pub(crate) fn due(&self) -> u64 {
        if self.delay.is_zero() {
            0
        } else {
            sys::now_ns().saturating_add(nanoseconds(self.delay))
        }
    }
}

/// What a chunk asks for that may wait anywhere before it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingOptions {
    options: ChunkOptions,
    /// When they were those, in nanoseconds of the monotonic clock; 0: they are so at any time.
    since: u64,
}

impl WaitingOptions {
    /// They are these now.
    pub(crate) fn new(options: ChunkOptions) -> Self {
        let ages = options.deadline.is_some() || !options.delay.is_zero();
        Self {
            options,
            since: if ages { sys::now_ns() } else { 0 },
        }
    }

    /// What they are by now: less time is left.
    pub(crate) fn now(&self) -> ChunkOptions {
        let mut options = self.options;
        if self.since != 0 {
            let waited = Duration::from_nanos(sys::now_ns().saturating_sub(self.since));
            options.deadline = options.deadline.map(|left| left.saturating_sub(waited));
            options.delay = options.delay.saturating_sub(waited);
        }
        options
    }
}

impl Serialize for WaitingOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.now().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WaitingOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ChunkOptions::deserialize(deserializer).map(Self::new)
    }
}

/// How long an item may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timeout(NonZeroU64);

impl Timeout {
    /// `None`: no time at all. What is longer than centuries is cut.
    pub(crate) fn new(timeout: Duration) -> Option<Self> {
        // Less than what fits, so that it can be added to any time.
        let ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        NonZeroU64::new(ns.min(u64::MAX / 4)).map(Self)
    }

    pub(crate) fn as_ns(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn as_duration(self) -> Duration {
        Duration::from_nanos(self.as_ns())
    }
}

/// Options that make sense.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValidatedOptions {
    pub(crate) timeout: Option<Timeout>,
    pub(crate) retries: u32,
    pub(crate) chunksize: Option<u32>,
    pub(crate) buffer: Option<usize>,
    /// Whether items are measured.
    pub(crate) is_measured: bool,
}

impl Options {
    pub(crate) fn special(&mut self) -> &mut SpecialOptions {
        self.special.get_or_insert_default()
    }

    pub(crate) fn retry_rules(&mut self) -> &mut RetryRules {
        self.special().retry.get_or_insert_default()
    }

    /// Whether a result that is an `Err` counts as a failure.
    pub(crate) fn counts_errors(&self) -> bool {
        self.special.as_ref().is_some_and(|it| it.counts_errors)
    }

    #[inline]
    pub(crate) fn check(&self) -> Result<ValidatedOptions, TaskError> {
        if self.chunksize == Some(0) {
            return invalid("chunksize is 0: a chunk has at least one item");
        }
        if self.buffer == Some(0) {
            return invalid(
                "buffer is 0: at least one item must be taken from the input to run it",
            );
        }
        let rules = self.special.as_ref().and_then(|it| it.retry.as_ref());
        if rules.is_some_and(|it| it.backoff.is_some_and(|it| !it.is_valid())) {
            return invalid("the factor of backoff is no positive number");
        }
        let timeout = self.timeout.map(Timeout::new);
        if timeout == Some(None) {
            return invalid("timeout is 0: no task ends in no time");
        }
        Ok(ValidatedOptions {
            timeout: timeout.flatten(),
            retries: self.retries,
            chunksize: self
                .chunksize
                .map(|size| u32::try_from(size).unwrap_or(u32::MAX)),
            buffer: self.buffer,
            is_measured: self.is_measured,
        })
    }
}

#[cold]
fn invalid<T>(message: &str) -> Result<T, TaskError> {
    Err(TaskError::new(TaskErrorKind::Invalid, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::outcome::{from_bytes, to_bytes};

    /// Three seconds ago they were these.
    fn waited(options: ChunkOptions) -> WaitingOptions {
        let mut waiting = WaitingOptions::new(options);
        if waiting.since != 0 {
            waiting.since = waiting.since.saturating_sub(3_000_000_000);
        }
        waiting
    }

    #[test]
    fn what_waits_has_less_time_left() {
        let seconds = Duration::from_secs;
        let options = ChunkOptions {
            timeout: Some(seconds(9)),
            deadline: Some(seconds(100)),
            grace: Some(seconds(9)),
            delay: seconds(50),
            ..ChunkOptions::default()
        };
        let waiting = waited(options);
        let sent: WaitingOptions = from_bytes(&to_bytes(&waiting), "options").expect("they are");
        for now in [waiting.now(), sent.now()] {
            assert!(now.deadline <= Some(seconds(97)) && now.deadline > Some(seconds(60)));
            assert!(now.delay <= seconds(47) && now.delay > seconds(10));
            assert_eq!((now.timeout, now.grace), (options.timeout, options.grace));
        }
        let short = ChunkOptions {
            deadline: Some(seconds(1)),
            delay: seconds(2),
            ..options
        };
        let now = waited(short).now();
        assert_eq!(
            (now.deadline, now.delay),
            (Some(Duration::ZERO), Duration::ZERO)
        );
    }

    #[test]
    fn what_does_not_age_stays() {
        let options = ChunkOptions {
            timeout: Some(Duration::from_secs(1)),
            retries: 3,
            ..ChunkOptions::default()
        };
        assert_eq!(waited(options).now(), options);
    }
}
