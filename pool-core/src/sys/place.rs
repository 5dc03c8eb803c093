//! Where shared memory is that nobody changes any more, and why something is not taken for that.

use std::io;
use std::os::fd::OwnedFd;

/// Why a descriptor is not taken for sealed memory.
#[derive(Debug)]
pub(crate) enum NotSealed {
    /// It is of something else.
    Other(OwnedFd),
    /// The system does not say.
    Refused(io::Error),
}

impl From<io::Error> for NotSealed {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// Where a process has a sealed memory file, and which one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) descriptor: i32,
    pub(crate) inode: u64,
}
