//! The ways in which a part of a task can end badly.

use procpool::TaskError;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use crate::file_barrier;

/// A task that starts a program, notes which in the [`Tally`](crate::file_barrier::Tally) with this
/// ticket, and waits for it.
pub(crate) fn run_a_program(tally: String) {
    let child = std::process::Command::new("sleep").arg("1000").spawn();
    let mut child = child.expect("there is sleep");
    file_barrier::add(&tally, child.id());
    child.wait().expect("it can be waited for");
}

/// How something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It says that it cannot.
    Error,
    /// It panics.
    Panic,
    /// It exits with this code.
    Exit(i32),
    /// It aborts.
    Abort,
    /// A segmentation fault.
    Segv,
    /// What the kernel does when memory runs out.
    Kill,
}

impl Fate {
    /// Those that a process survives.
    pub const HARMLESS: [Self; 2] = [Self::Error, Self::Panic];

    /// Those that it does not.
    pub const DEADLY: [Self; 5] = [
        Self::Exit(0),
        Self::Exit(42),
        Self::Abort,
        Self::Segv,
        Self::Kill,
    ];

    /// Says that an error has how the worker died, or what the panic said.
    pub fn assert_told(self, error: &TaskError) {
        let (code, signal) = match self {
            Self::Error | Self::Panic => (None, None),
            Self::Exit(code) => (Some(code), None),
            Self::Abort => (None, Some(Signal::ABORT)),
            Self::Segv => (None, Some(Signal::SEGV)),
            Self::Kill => (None, Some(Signal::KILL)),
        };
        assert_eq!(error.exit_code(), code, "{self:?}: {error}");
        let signal = signal.map(Signal::as_raw);
        assert_eq!(error.signal(), signal, "{self:?}: {error}");
        let panic = (self == Self::Panic).then_some(REASON);
        assert_eq!(error.panic_message(), panic, "{self:?}: {error}");
        if matches!(self, Self::Error | Self::Panic) {
            assert!(error.to_string().contains(REASON), "{self:?}: {error}");
        }
    }
}

/// What those say that say something.
pub const REASON: &str = "this is the end";

/// Ends the process, panics, or fails.
pub fn strike(fate: Fate) -> Result<(), &'static str> {
    match fate {
        Fate::Error => Err(REASON),
        Fate::Panic => panic!("{REASON}"),
        Fate::Exit(code) => std::process::exit(code),
        Fate::Abort => std::process::abort(),
        // The first one may only take away the handler that recognises stack overflows.
        Fate::Segv => loop {
            kill_process(getpid(), Signal::SEGV).expect("one may kill oneself");
        },
        Fate::Kill => loop {
            kill_process(getpid(), Signal::KILL).expect("one may kill oneself");
        },
    }
}
