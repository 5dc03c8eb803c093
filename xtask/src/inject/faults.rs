//! The faults that are injected, and what is expected of each.

/// System calls, and how they can fail.
pub(super) struct Fault {
    /// As strace names them; several are separated by commas and fail together.
    pub(super) calls: &'static str,
    pub(super) errors: &'static [&'static str],
}

const fn fault(calls: &'static str, errors: &'static [&'static str]) -> Fault {
    Fault { calls, errors }
}

/// What the kernel says of these calls in bad times, and what a sandbox says. What is missing here,
/// the C library or the standard library cannot do without, or a failure that is injected is none
/// that a system has: a `futex` that wakes nobody, a `close` that fails and has not closed.
pub(super) const FAULTS: &[Fault] = &[
    fault("epoll_create1", &["EMFILE", "ENOMEM"]),
    fault("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    fault("epoll_pwait2", &["EINTR", "EPERM", "ENOSYS"]),
    fault("epoll_pwait2,epoll_wait,epoll_pwait", &["EPERM"]),
    fault("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    fault("pipe2", &["EMFILE", "ENFILE"]),
    fault("read", &["EINTR", "EIO"]),
    fault("write", &["EINTR", "ENOSPC", "EIO"]),
    fault("ppoll", &["EINTR", "ENOMEM", "EPERM"]),
    fault("poll", &["EINTR", "ENOMEM"]),
    fault("memfd_create", &["EMFILE", "ENFILE", "ENOMEM", "EPERM"]),
    fault("ftruncate", &["ENOMEM", "EINTR"]),
    fault("fcntl", &["EMFILE", "EPERM", "ENOMEM"]),
    fault("fstat", &["ENOMEM"]),
    fault("statx", &["ENOMEM", "EPERM", "ENOSYS"]),
    fault("openat", &["EMFILE", "ENFILE", "EACCES", "ENOMEM"]),
    fault("open", &["EMFILE", "EACCES"]),
    fault("readlink", &["ENOENT", "EACCES"]),
    fault("getdents64", &["ENOENT", "ENOMEM"]),
    fault("ioctl", &["ENOMEM"]),
    fault("dup2", &["EBUSY", "EINTR"]),
    fault("dup3", &["EBUSY", "EINTR"]),
    fault("socketpair", &["EMFILE", "ENFILE"]),
    fault("socket", &["EMFILE", "EPERM"]),
    fault(
        "sendmsg",
        &["EAGAIN", "ENOBUFS", "ENOMEM", "EINTR", "ETOOMANYREFS"],
    ),
    fault("recvmsg", &["EINTR", "ENOMEM"]),
    fault("shutdown", &["ENOMEM"]),
    fault("clone", &["EAGAIN", "ENOMEM", "EPERM"]),
    fault("clone3", &["EAGAIN", "ENOMEM"]),
    fault("vfork", &["EAGAIN", "ENOMEM"]),
    fault("execve", &["ENOENT", "EACCES", "ENOMEM", "ETXTBSY"]),
    fault("setpgid", &["EPERM", "EACCES"]),
    fault("prctl", &["EPERM", "EINVAL"]),
    fault("kill", &["EPERM"]),
    fault("pidfd_send_signal", &["EPERM", "ENOSYS"]),
    fault("kill,pidfd_send_signal", &["EPERM"]),
    fault("tgkill", &["EAGAIN", "EPERM"]),
    fault("pidfd_open", &["EMFILE", "ENFILE", "ENOMEM", "EPERM"]),
    fault("waitid", &["EINTR", "EPERM"]),
    fault("wait4", &["EINTR", "EPERM"]),
    fault("membarrier", &["ENOMEM", "EPERM"]),
    fault("madvise", &["ENOMEM", "EINVAL"]),
    fault("getrandom", &["EINTR", "EPERM"]),
    fault("sched_getaffinity", &["EPERM"]),
    fault("prlimit64", &["EPERM"]),
    fault("rt_sigtimedwait", &["EPERM"]),
    fault("mmap", &["ENOMEM"]),
    fault("mprotect", &["ENOMEM"]),
    fault("sigaltstack", &["ENOMEM"]),
    fault("getsockopt", &["EPERM"]),
    fault("getpgid", &["EPERM"]),
    fault("sendto", &["EINTR", "EAGAIN", "ENOBUFS"]),
    fault("newfstatat", &["ENOMEM", "EACCES"]),
];

/// What a run may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Every step is right.
    Right,
    /// Every step is right, or ends with an error of a type of ours that has a text; the pool ends,
    /// and nothing is left.
    Ends,
    /// The pool cannot be built, and the error has this in its text.
    NoPool(&'static str),
}

struct Row {
    /// Empty: both.
    backend: &'static str,
    calls: &'static str,
    /// Empty: any.
    error: &'static str,
    /// Only if it fails from this time on, and always. 0: whenever.
    since: u32,
    expected: Expected,
}

const fn row(
    backend: &'static str,
    calls: &'static str,
    error: &'static str,
    since: u32,
    expected: Expected,
) -> Row {
    Row {
        backend,
        calls,
        error,
        since,
        expected,
    }
}

/// The first row that fits counts; where none does, it is [`Expected::Ends`].
const EXPECTED: &[Row] = &[
    // There is another way.
    row("", "epoll_pwait2", "", 0, Expected::Right),
    row("", "ppoll", "EPERM", 0, Expected::Right),
    row("", "statx", "EPERM", 0, Expected::Right),
    row("", "statx", "ENOSYS", 0, Expected::Right),
    row("", "membarrier", "", 0, Expected::Right),
    row("", "madvise", "", 0, Expected::Right),
    row("", "getrandom", "EINTR", 0, Expected::Right),
    row("", "kill", "", 0, Expected::Right),
    row("", "pidfd_send_signal", "", 0, Expected::Right),
    // A signal came, and nothing else.
    row("", "ppoll", "EINTR", 0, Expected::Right),
    row("", "recvmsg", "EINTR", 0, Expected::Right),
    row("", "sendmsg", "EINTR", 0, Expected::Right),
    row("", "waitid", "EINTR", 0, Expected::Right),
    row("", "ftruncate", "EINTR", 0, Expected::Right),
    // It does not pass; what the workers print goes where the program's output goes.
    row("fork", "dup2", "EBUSY", 1, Expected::Ends),
    row("fork", "dup2", "", 0, Expected::Right),
    // There is none.
    row(
        "",
        "epoll_create1",
        "",
        1,
        Expected::NoPool("epoll_create1"),
    ),
    row(
        "",
        "epoll_pwait2,epoll_wait,epoll_pwait",
        "",
        1,
        Expected::NoPool("epoll_pwait2"),
    ),
    row("", "epoll_ctl", "", 1, Expected::NoPool("epoll_ctl")),
    row("", "eventfd2", "", 1, Expected::NoPool("eventfd2")),
    row("", "pipe2", "", 1, Expected::NoPool("pipe2")),
    row("", "memfd_create", "", 1, Expected::NoPool("memfd_create")),
    row("", "ftruncate", "", 1, Expected::NoPool("ftruncate")),
    row("", "socketpair", "", 1, Expected::NoPool("socketpair")),
    row("fork", "pidfd_open", "", 1, Expected::NoPool("pidfd_open")),
];

/// What is expected of the scenario when these calls fail.
pub(super) fn expected(backend: &str, calls: &str, error: &str, since: u32) -> Expected {
    let fits = |row: &&Row| {
        (row.backend.is_empty() || row.backend == backend)
            && row.calls == calls
            && (row.error.is_empty() || row.error == error)
            && (row.since == 0 || row.since == since)
    };
    let row = EXPECTED.iter().find(fits);
    row.map_or(Expected::Ends, |row| row.expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_of_a_fault() {
        for row in EXPECTED {
            let fault = FAULTS.iter().find(|fault| fault.calls == row.calls);
            let fault = fault.expect(row.calls);
            let error = row.error;
            assert!(error.is_empty() || fault.errors.contains(&error), "{error}");
            assert!(["", "fork", "spawn"].contains(&row.backend));
        }
    }

    #[test]
    fn what_has_no_row_ends() {
        assert_eq!(expected("spawn", "dup2", "EINTR", 0), Expected::Ends);
        assert_eq!(expected("fork", "ppoll", "EINTR", 3), Expected::Right);
        assert_eq!(expected("fork", "pipe2", "EMFILE", 2), Expected::Ends);
        let none = Expected::NoPool("pipe2");
        assert_eq!(expected("spawn", "pipe2", "EMFILE", 1), none);
    }
}
