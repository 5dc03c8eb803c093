//! Descriptors that are none of the standard streams.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use crate::sys::refused::failed;

/// The same descriptor under a number that is not one of the standard streams'. A program may have
/// closed one of those, and then a descriptor that is opened gets its number: what the program or
/// a task prints would go there.
///
/// # Errors
/// When there is none left.
pub fn off_standard(descriptor: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    let descriptor = descriptor.into();
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    fcntl_dupfd_cloexec(&descriptor, 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))
}
