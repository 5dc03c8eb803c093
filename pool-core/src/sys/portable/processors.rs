//! A process runs on whatever processor the system likes.

use std::io;

use rustix::io::Errno;

use crate::sys::refused::failed;

/// No processor has this number or a higher one.
pub(crate) const MOST_PROCESSORS: usize = 1024;

/// Those that this thread may run on: the system does not say.
pub(crate) fn allowed_processors() -> io::Result<Vec<usize>> {
    Err(failed("sched_getaffinity")(Errno::NOSYS))
}

/// Lets this thread run on these alone, which cannot be had.
pub(crate) fn run_on(_processors: &[usize]) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}
