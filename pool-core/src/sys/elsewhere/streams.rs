//! What workers would print into.

use std::io::{self, Write};

use super::fd::{AsFd, OwnedFd};
use super::missing::missing;
use crate::sys::errno::Errno;

pub(crate) fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Err(missing("a pipe"))
}

#[cfg(feature = "tracing")]
pub(crate) fn never_block(end: &OwnedFd) -> io::Result<()> {
    end.as_fd().never()
}

pub(crate) fn null_output() -> io::Result<OwnedFd> {
    Err(missing("a place for what is thrown away"))
}

pub(crate) fn read(from: &OwnedFd, _into: &mut [u8]) -> Result<usize, Errno> {
    from.as_fd().never()
}

#[cfg(feature = "tracing")]
pub(crate) fn write(to: &OwnedFd, _bytes: &[u8]) -> Result<usize, Errno> {
    to.as_fd().never()
}

#[cfg(feature = "tracing")]
pub(crate) fn enlarge_pipe(pipe: impl AsFd, _bytes: usize) {
    pipe.as_fd().never()
}

/// One of this program's own outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standard {
    Output,
    Error,
}

pub(crate) fn write_past_locks(standard: Standard, bytes: &[u8]) {
    // No worker prints: nobody comes here.
    let _ = match standard {
        Standard::Output => io::stdout().write_all(bytes),
        Standard::Error => io::stderr().write_all(bytes),
    };
}
