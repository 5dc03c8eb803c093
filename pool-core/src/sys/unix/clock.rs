//! The monotonic clock, and processor time.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the monotonic clock, the same in every process of this machine.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whose processor time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuClock {
    /// That of all threads of this process.
    Process,
    /// That of this thread alone.
    Thread,
}

/// Processor time in nanoseconds.
pub(crate) fn cpu_ns(clock: CpuClock) -> u64 {
    let time = clock_gettime(match clock {
        CpuClock::Process => ClockId::ProcessCPUTime,
        CpuClock::Thread => ClockId::ThreadCPUTime,
    });
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The clock that deadlines are measured by.
pub(crate) fn now() -> Instant {
    Instant::now()
}
