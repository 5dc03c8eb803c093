//! How a process ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It is gone, and nobody can say how: somebody else has asked the kernel first.
    Unknown,
    /// It is gone, and the process that started it as well, which alone could have said how. Most
    /// likely it died of that; nobody knows whether it had died before.
    Orphaned,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match sys::signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => f.write_str("died of an unknown cause"),
            Self::Orphaned => f.write_str(
                "went down with the process that had started it, so that nobody can say how it \
                 died,",
            ),
        }
    }
}
