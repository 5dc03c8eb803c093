//! How sharing a value can fail.

use std::error::Error;
use std::fmt;
use std::io;

use crate::codec::CodecError;
use crate::error::hint::hint;

/// Why a value could not be put into shared memory. The text says what to do about it.
#[derive(Clone)]
pub struct BroadcastError {
    message: String,
    is_refused_by_system: bool,
}

impl BroadcastError {
    pub(super) fn refused(error: &io::Error) -> Self {
        // That one speaks of processes.
        let hint = match error.kind() {
            io::ErrorKind::OutOfMemory => "",
            _ => hint(error),
        };
        Self {
            message: format!("the system refuses the memory: {error}{hint}"),
            is_refused_by_system: true,
        }
    }

    pub(super) fn not_encoded(error: &CodecError) -> Self {
        Self {
            message: error.to_string(),
            is_refused_by_system: false,
        }
    }

    /// Whether the system is out of memory or descriptors; otherwise the value cannot be
    /// serialised.
    #[must_use]
    pub fn is_refused_by_system(&self) -> bool {
        self.is_refused_by_system
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot share the value: {}", self.message)
    }
}

/// What a person reads, since `main` prints it so when it returns an error.
impl fmt::Debug for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BroadcastError {}
