//! Levels as numbers, and what else a worker is told to forward.

use tracing_core::Level;
use tracing_core::metadata::LevelFilter;

/// Beside the number: spans are forwarded too.
pub(super) const SPANS: u32 = 1 << 8;

/// 1 for an error to 5 for a trace.
pub(super) fn number_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

pub(super) fn filter_from_number(number: u32) -> LevelFilter {
    match number {
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        5 => LevelFilter::TRACE,
        _ => LevelFilter::OFF,
    }
}
