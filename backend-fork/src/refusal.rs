//! What the system refused, in words that help.

use pool_core::LaunchError;
use rustix::io::Errno;

/// Says what could not be done, why, and where a limit is the reason, which one.
pub(crate) fn describe(what: &str, errno: Errno) -> String {
    let error = std::io::Error::from(errno);
    let hint = match errno {
        Errno::MFILE => "; raise this process's limit of open files (ulimit -n)",
        Errno::NFILE => "; the system's limit of open files is reached (fs.file-max)",
        Errno::TOOMANYREFS => {
            "; too many descriptors are on their way, raise the limit of open files (ulimit -n)"
        }
        _ => "",
    };
    format!("{what}: {error}{hint}")
}

/// The same for a worker that could not be forked.
pub(crate) fn describe_fork(errno: Errno) -> String {
    let hint = match errno {
        Errno::AGAIN => {
            "; the limit of processes is reached (ulimit -u, or pids.max of the control group)"
        }
        Errno::NOMEM => "; there is too little memory for another process",
        _ => "",
    };
    describe("cannot fork a worker", errno) + hint
}

/// A [`LaunchError`] of [`describe`].
pub(crate) fn launch_error(what: &str, error: impl Into<std::io::Error>) -> LaunchError {
    let error = error.into();
    match Errno::from_io_error(&error) {
        Some(errno) => LaunchError::new(describe(what, errno)),
        None => LaunchError::new(what).caused_by(error),
    }
}
