//! When the parent looks whether a worker's running item has had its time, and what it saw then.

use super::liveness::Killed;

/// All times are in nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeadlineCheck {
    /// When to look.
    due: Option<u64>,
    /// Which item was asked to stop and is killed if it does not.
    notice: Option<Notice>,
    /// How far the worker was at the last look, and since when.
    seen: Option<(u64, u64)>,
}

impl DeadlineCheck {
    #[inline]
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Look then, or earlier.
    pub(super) fn look_by(&mut self, due: u64) {
        if self.due.is_none() {
            // What was seen before was of other items.
            self.seen = None;
        }
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Look then, and not earlier; `None`: not at all.
    pub(super) fn look_next_at(&mut self, due: Option<u64>) {
        self.due = due;
    }

    pub(super) fn notice(&self) -> Option<Notice> {
        self.notice
    }

    /// An item was asked to stop. What it was asked before stays.
    pub(super) fn give_notice(&mut self, notice: Notice) {
        let earlier = self.notice.filter(|it| it.item == notice.item);
        self.notice = earlier.or(Some(notice));
    }

    /// The item that was asked to stop has ended.
    pub(super) fn drop_notice(&mut self) {
        self.notice = None;
    }

    /// The worker is so far, as a look shows. Says since when it has been.
    pub(super) fn stalled_since(&mut self, position: u64, now: u64) -> u64 {
        let (seen, since) = self.seen.unwrap_or((position, now));
        let since = if position > seen { now } else { since };
        self.seen = Some((position.max(seen), since));
        since
    }

    /// Nobody could get ahead for this time.
    pub(super) fn excuse(&mut self, time: u64) {
        if let Some((_, since)) = &mut self.seen {
            *since += time;
        }
    }
}

/// That an item was asked to stop, and is killed if it has not by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Notice {
    /// Its number, counted from 1.
    pub(in crate::engine) item: u64,
    pub(in crate::engine) why: Killed,
    /// In nanoseconds.
    pub(in crate::engine) due: u64,
}
