//! The functions that the pools run.

use std::fs::File;
use std::hint::black_box;

/// The smallest useful task.
#[must_use]
pub fn square(x: u64) -> u64 {
    black_box(x).wrapping_mul(x)
}

/// Squares a chunk: for rivals that have no `map` of their own.
#[must_use]
pub fn square_all(numbers: Vec<u64>) -> Vec<u64> {
    numbers.into_iter().map(square).collect()
}

/// Spins through a chunk: for rivals that have no `map` of their own.
#[must_use]
pub fn spin_all(items: Vec<crate::spin::Spin>) -> Vec<u64> {
    items.into_iter().map(crate::spin::spin).collect()
}

/// Gives bytes back.
#[must_use]
pub fn echo_bytes(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// Gives numbers back.
#[must_use]
pub fn echo_floats(floats: Vec<f64>) -> Vec<f64> {
    floats
}

/// Occupies a worker until somebody opens the named pipe at this path for writing.
#[must_use]
pub fn block(path: String) -> bool {
    File::open(path).is_ok()
}
