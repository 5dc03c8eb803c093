//! The signal handlers of a worker.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::signal::SigSet;
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Gives this process the signal handling of a fresh one: default actions, nothing blocked.
///
/// A handler of the program's (for SIGTERM, SIGINT, SIGCHLD...) means the program, not a worker:
/// it would write to the program's self-pipe, or remove its files. The exceptions:
/// - SIGSEGV and SIGBUS stay as they are. These handlers run in the thread that is at fault and say
///   why: the standard library's distinguishes a stack overflow from other faults, and its message
///   is what a user needs to see. It goes back to the default action for the others.
/// - SIGPIPE is ignored, as Rust programs expect: writing to a closed pipe is an error, no death.
/// - SIGTTOU is ignored, so that a worker, which is no part of the terminal's foreground, is not
///   stopped when it prints to a terminal with `stty tostop`.
pub fn reset_signals() {
    for signal in 1..=last_signal() {
        match signal {
            libc::SIGKILL | libc::SIGSTOP | libc::SIGSEGV | libc::SIGBUS => {}
            libc::SIGPIPE | libc::SIGTTOU => without_handler(signal, WithoutHandler::Ignore),
            // It fails for the two real-time signals that the C library keeps for itself.
            _ => without_handler(signal, WithoutHandler::Default),
        }
    }
    SigSet::empty()
        .thread_set_mask()
        .expect("the arguments are valid");
}

/// The highest number of a signal.
fn last_signal() -> libc::c_int {
    #[cfg(target_os = "linux")]
    return libc::SIGRTMAX();
    // The last one of those that have a name everywhere.
    #[cfg(not(target_os = "linux"))]
    libc::SIGUSR2
}

/// Makes errors of what SIGPIPE, SIGTTIN and SIGTTOU stand for.
pub fn ignore_signals_of_files() {
    for signal in [libc::SIGPIPE, libc::SIGTTIN, libc::SIGTTOU] {
        without_handler(signal, WithoutHandler::Ignore);
    }
}

/// What becomes of a signal that no code of the process looks at.
#[derive(Clone, Copy)]
enum WithoutHandler {
    Default,
    Ignore,
}

fn without_handler(signal: libc::c_int, what: WithoutHandler) {
    let action = match what {
        WithoutHandler::Default => libc::SIG_DFL,
        WithoutHandler::Ignore => libc::SIG_IGN,
    };
    // SAFETY: neither action runs code of this process.
    unsafe { libc::signal(signal, action) };
}

/// Sends a signal to a process. `false`: there is none, or the system refuses it.
pub(crate) fn send_signal(pid: u32, signal: Signal) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// What a signal is called.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    Signal::from_named_raw(signal).and_then(|signal| {
        Some(match signal {
            Signal::HUP => "SIGHUP",
            Signal::INT => "SIGINT",
            Signal::QUIT => "SIGQUIT",
            Signal::ILL => "SIGILL",
            Signal::TRAP => "SIGTRAP",
            Signal::ABORT => "SIGABRT",
            Signal::BUS => "SIGBUS",
            Signal::FPE => "SIGFPE",
            Signal::KILL => "SIGKILL",
            Signal::USR1 => "SIGUSR1",
            Signal::SEGV => "SIGSEGV",
            Signal::USR2 => "SIGUSR2",
            Signal::PIPE => "SIGPIPE",
            Signal::ALARM => "SIGALRM",
            Signal::TERM => "SIGTERM",
            Signal::XCPU => "SIGXCPU",
            Signal::XFSZ => "SIGXFSZ",
            Signal::SYS => "SIGSYS",
            _ => return None,
        })
    })
}
