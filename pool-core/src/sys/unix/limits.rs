//! What the system lets a process have.

pub(crate) use rustix::process::Resource as Limit;

use rustix::io::Errno;
use rustix::process::{Rlimit, setrlimit};

/// Sets a limit, the soft and the hard one. `None`: there is none.
pub(crate) fn set_limit(
    of: Limit,
    current: Option<u64>,
    maximum: Option<u64>,
) -> Result<(), Errno> {
    setrlimit(of, Rlimit { current, maximum })
}

/// Lets others go first, or this process if it is less than nothing.
pub(crate) fn be_nicer(by: i32) -> Result<(), Errno> {
    rustix::process::nice(by).map(drop)
}
