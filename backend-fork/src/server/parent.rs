//! The process that a server and its standby serve.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use crate::socket::Socket;

/// What stands for the parent in a server and in a standby. A worker has its own.
#[derive(Debug)]
pub(crate) struct Parent {
    /// Its pidfd.
    pub(crate) death: OwnedFd,
    /// What makes the kernel continue the whole family when the parent ends, in whatever way: one
    /// that somebody has stopped would not look at the pidfd. The parent-death signal does so as
    /// well, but when the *thread* ends that started the server.
    pub(crate) tie: Socket,
}

/// What a server's thread is called in listings.
pub(super) const SERVER_NAME: &CStr = c"procpool-server";

/// Sees to it that this process notices the death of the parent.
pub(super) fn heed_parent() {
    // That the parent has died is seen by its pidfd, so that the workers' process groups can be
    // killed in good order. A server that somebody has stopped would not look: hence this signal,
    // which continues it, and does nothing to one that runs. (SIGKILL would leave alive what tasks
    // have started; and the kernel sends this signal already when the *thread* ends that started
    // the server.)
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
}
