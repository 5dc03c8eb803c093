//! Which processors a process may run on.

use std::io;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::sys::refused::failed;

/// No processor has this number or a higher one.
pub(crate) const MOST_PROCESSORS: usize = CpuSet::MAX_CPU;

/// Those that this thread may run on.
pub(crate) fn allowed_processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).map_err(failed("sched_getaffinity"))?;
    Ok((0..MOST_PROCESSORS)
        .filter(|it| allowed.is_set(*it))
        .collect())
}

/// Lets this thread run on these alone.
pub(crate) fn run_on(processors: &[usize]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|it| set.set(*it));
    sched_setaffinity(None, &set)
}
