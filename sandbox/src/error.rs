use std::io;
use std::path::PathBuf;

/// Why a process is not confined. It may be confined in part then: it should end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// This system lacks a part of what was asked for.
    #[error(
        "this system lacks {part}: use a newer kernel, or `Sandbox::best_effort()` to do without"
    )]
    Unsupported {
        /// What is missing, and since when Linux has it.
        part: String,
    },
    /// Other threads of the process would stay as they are.
    #[error(
        "the process has {threads} threads, and only one can be confined: enter the sandbox before \
         others are started"
    )]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// A path that was to be allowed cannot be opened.
    #[error("{path:?} cannot be allowed: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no system call of this name on this processor.
    #[error("there is no system call {name:?} here: see `man 2 syscalls` for their names")]
    UnknownSyscall {
        /// The name.
        name: String,
    },
    /// The system refuses a step, which it should not.
    #[error("the system does not let the process be confined ({step}): {reason}")]
    Refused {
        /// Which one.
        step: &'static str,
        /// What it says.
        reason: String,
    },
}
