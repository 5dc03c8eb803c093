//! The errors of the system.

#[cfg(not(unix))]
use std::io;

#[cfg(unix)]
pub(crate) use rustix::io::Errno;

/// An error of a system that is not there, by the name that it has in a Unix.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms, reason = "they are called so")]
pub enum Errno {
    ACCESS,
    AGAIN,
    BADF,
    FBIG,
    INTR,
    INVAL,
    MFILE,
    NFILE,
    NOBUFS,
    NOMEM,
    NOSYS,
    PERM,
    TOOMANYREFS,
}

#[cfg(not(unix))]
impl Errno {
    /// What an error of the standard library stands for: it has no number of a Unix.
    pub(crate) fn from_io_error(_error: &io::Error) -> Option<Self> {
        None
    }

    /// What the standard library says of it.
    pub(crate) fn kind(self) -> io::ErrorKind {
        match self {
            Self::ACCESS | Self::PERM => io::ErrorKind::PermissionDenied,
            Self::AGAIN => io::ErrorKind::WouldBlock,
            Self::FBIG => io::ErrorKind::FileTooLarge,
            Self::INTR => io::ErrorKind::Interrupted,
            Self::BADF | Self::INVAL => io::ErrorKind::InvalidInput,
            Self::NOMEM => io::ErrorKind::OutOfMemory,
            Self::NOSYS => io::ErrorKind::Unsupported,
            Self::MFILE | Self::NFILE | Self::NOBUFS | Self::TOOMANYREFS => io::ErrorKind::Other,
        }
    }
}

#[cfg(not(unix))]
impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        errno.kind().into()
    }
}
