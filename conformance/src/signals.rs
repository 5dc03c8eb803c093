//! Signals do by default what they do in a program that was started at a terminal.
#![allow(unsafe_code)]

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// What a starter may have this program ignore: a shell that starts it in the background, `nohup`,
/// a service's manager.
const IGNORED_BY_STARTERS: [Signal; 11] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCHLD,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Lets signals do to this program, and to all that it starts, what the tests expect of them,
/// whatever its starter has had it ignore or block. There must be one thread.
pub(crate) fn reset() {
    for number in IGNORED_BY_STARTERS {
        // SAFETY: it is no handler, and this program has none yet.
        unsafe { signal(number, SigHandler::SigDfl) }.expect("it may be set");
    }
    SigSet::empty().thread_set_mask().expect("it may be set");
}
