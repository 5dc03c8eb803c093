//! System calls that fail: which one it was, and whether it will ever work here.

use std::error::Error;
use std::fmt;
use std::io;

use super::errno::Errno;

/// A system call that has failed. It becomes an [`io::Error`] whose text names the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedCall {
    call: &'static str,
    errno: Errno,
}

/// Makes an error name the system call that it is of.
pub fn failed(call: &'static str) -> impl Fn(Errno) -> io::Error {
    move |errno| io::Error::new(errno.kind(), FailedCall { call, errno })
}

/// Makes an error of the system name the call that it is of.
pub fn failed_in(call: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| match Errno::from_io_error(&error) {
        Some(errno) => failed(call)(errno),
        None => error,
    }
}

/// Whether this is what a kernel says that does not know a call, or a sandbox (a seccomp filter)
/// that does not allow it: to ask again would be in vain.
pub(crate) fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::ACCESS)
}

/// What the kernel has said, whether or not the error names the call.
pub(crate) fn errno_of(error: &io::Error) -> Option<Errno> {
    match FailedCall::of(error) {
        Some(failed) => Some(failed.errno),
        None => Errno::from_io_error(error),
    }
}

impl FailedCall {
    /// The one that an error is of, if it names one.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether it is of this call.
    pub(crate) fn is_of(&self, call: &str) -> bool {
        self.call == call
    }

    /// Whether the call can never work here.
    pub(crate) fn is_refused(&self) -> bool {
        is_refusal(self.errno)
    }
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, errno } = self;
        write!(f, "{call}: {}", io::Error::from(*errno))
    }
}

impl Error for FailedCall {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_call_and_keeps_its_kind() {
        let error = failed("memfd_create")(Errno::PERM);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("memfd_create: "), "{error}");
        let call = FailedCall::of(&error).expect("it names one");
        assert!(call.is_refused());
        assert_eq!(errno_of(&error), Some(Errno::PERM));
        assert!(FailedCall::of(&io::Error::from(Errno::PERM)).is_none());
        let error = failed("memfd_create")(Errno::MFILE);
        assert!(!FailedCall::of(&error).expect("it names one").is_refused());
    }
}
