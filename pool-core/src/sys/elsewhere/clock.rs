//! The clock of the standard library.

use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the clock was asked first.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    // Zero stands for no time.
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) + 1
}

/// Whose processor time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuClock {
    /// That of all threads of this process.
    Process,
    /// That of this thread alone.
    Thread,
}

/// Processor time in nanoseconds: the standard library does not know it, so this is time.
pub(crate) fn cpu_ns(_clock: CpuClock) -> u64 {
    now_ns()
}

/// The clock that deadlines are measured by.
pub(crate) fn now() -> Instant {
    Instant::now()
}
