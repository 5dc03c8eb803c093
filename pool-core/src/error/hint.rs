//! What to do about an error of the system.

use std::io;

use crate::sys::Errno;
use crate::sys::{FailedCall, errno_of};

/// What to do about an error of the system, where that is known.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    if FailedCall::of(error).is_some_and(FailedCall::is_refused) {
        return "; the kernel, or a sandbox (a seccomp filter), refuses this system call, which \
                pools cannot do without: allow it (docs/system-calls.md has all of them)";
    }
    match errno_of(error) {
        Some(Errno::FBIG) => {
            "; the limit of file sizes counts for shared memory, too: raise it (ulimit -f)"
        }
        Some(Errno::MFILE | Errno::TOOMANYREFS) => {
            "; a pool needs a dozen descriptors, six for each worker and one for each captured \
             output: raise the limit of open files (ulimit -n)"
        }
        Some(Errno::NFILE) => "; the system's limit of open files is reached (fs.file-max)",
        // Of a socket, that is something else.
        Some(Errno::AGAIN) if !FailedCall::of(error).is_some_and(|call| call.is_of("sendmsg")) => {
            "; the limit of processes and threads is reached (ulimit -u, or pids.max of the \
             control group)"
        }
        Some(Errno::NOMEM | Errno::NOBUFS) => "; the system has too little memory for that",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use crate::sys::Errno;

    use super::hint;
    use crate::sys::failed;

    /// What a message could not be sent for is no lack of processes.
    #[test]
    fn a_message_that_cannot_be_sent_is_no_process() {
        for errno in [Errno::AGAIN, Errno::NOBUFS, Errno::NOMEM, Errno::CONNRESET] {
            let error = failed("sendmsg")(errno);
            assert!(error.to_string().contains("sendmsg"), "{error}");
            assert!(!hint(&error).contains("process"), "{}", hint(&error));
        }
    }
}
