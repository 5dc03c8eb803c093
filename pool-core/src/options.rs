//! The options of one call.

use std::time::Duration;

use crate::error::{TaskError, TaskErrorKind};

/// See [`CallWith`](crate::CallWith).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) chunksize: Option<usize>,
    pub(crate) buffer: Option<usize>,
}

/// Options that make sense.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) chunksize: Option<u32>,
    pub(crate) buffer: Option<usize>,
}

impl Options {
    pub(crate) fn check(self) -> Result<CheckedOptions, TaskError> {
        let invalid = |message| Err(TaskError::new(TaskErrorKind::Invalid, message));
        if self.chunksize == Some(0) {
            return invalid("chunksize is 0: a chunk has at least one item");
        }
        if self.buffer == Some(0) {
            return invalid(
                "buffer is 0: at least one item must be taken from the input to run it",
            );
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return invalid("timeout is 0: no task ends in no time");
        }
        Ok(CheckedOptions {
            timeout: self.timeout,
            retries: self.retries,
            chunksize: self
                .chunksize
                .map(|size| u32::try_from(size).unwrap_or(u32::MAX)),
            buffer: self.buffer,
        })
    }
}
