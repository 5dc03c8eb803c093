//! A pipe holds what it holds.

use std::os::fd::AsFd;

/// How many bytes a pipe holds: the system does not say.
pub(crate) fn pipe_size(_pipe: impl AsFd) -> Option<usize> {
    None
}

/// Lets a pipe hold more, which cannot be had.
#[cfg(feature = "tracing")]
pub(crate) fn enlarge_pipe(_pipe: impl AsFd, _bytes: usize) {}
