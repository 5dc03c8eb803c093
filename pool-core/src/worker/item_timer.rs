//! Measures items, in the worker.

use crate::shm::item_timing::ItemTiming;
use crate::sys;

/// Measures one item after the other.
pub(crate) struct ItemTimer {
    clock: sys::CpuClock,
    begun: u64,
    cpu: u64,
    decoded: u64,
    returned: u64,
}

impl ItemTimer {
    /// A meter that takes processor time from this clock.
    pub(crate) fn new(clock: sys::CpuClock) -> Self {
        Self {
            clock,
            begun: 0,
            cpu: 0,
            decoded: 0,
            returned: 0,
        }
    }

    /// The item begins.
    pub(crate) fn begin(&mut self) {
        self.begun = sys::now_ns();
        self.cpu = sys::cpu_ns(self.clock);
        self.decoded = 0;
        self.returned = 0;
    }

    /// Its argument is decoded.
    pub(crate) fn decoded(&mut self) {
        self.decoded = sys::now_ns();
    }

    /// Its function has returned.
    pub(crate) fn returned(&mut self) {
        self.returned = sys::now_ns();
    }

    /// It has ended, wherever it was.
    pub(crate) fn end(&self) -> ItemTiming {
        let ended = sys::now_ns();
        let reached = |time: u64| if time == 0 { ended } else { time };
        let (decoded, returned) = (reached(self.decoded), reached(self.returned));
        ItemTiming {
            begun: self.begun,
            decode: decoded.saturating_sub(self.begun),
            run: returned.saturating_sub(decoded),
            encode: ended.saturating_sub(returned),
            cpu: sys::cpu_ns(self.clock).saturating_sub(self.cpu),
            peak_rss: sys::peak_rss(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_fails_early_has_no_later_times() {
        let mut meter = ItemTimer::new(sys::CpuClock::Thread);
        meter.begin();
        let measure = meter.end();
        assert_eq!((measure.run, measure.encode), (0, 0));
        assert!(measure.peak_rss > 0, "this process has some memory");
    }
}
