//! The numbers of processes.

/// The process that this one is a child of; 0 if that is in another process namespace, or a sandbox
/// refuses to say it. (rustix takes it, as the others, for a call that cannot fail, and
/// panics in debug builds.)
#[must_use]
pub fn starter() -> u32 {
    // Where it is refused, the answer is a negative number.
    nix::unistd::getppid().as_raw().max(0).unsigned_abs()
}

/// This process; 0 if a sandbox refuses to say it.
#[must_use]
pub fn own_pid() -> u32 {
    nix::unistd::getpid().as_raw().max(0).unsigned_abs()
}
