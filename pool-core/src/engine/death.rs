//! What is known of the death of a worker.

use std::borrow::Cow;

use super::refused_call::FatalCall;
use super::worker_slot::Unheard;
use crate::error::task_error::{Shortage, TaskError};
use crate::process::exit_status::ExitStatus;
use crate::process::worker_info::WorkerInfo;
use crate::sys::Signal;
use crate::worker::corrupt::{EXIT_CORRUPT, EXIT_UNHEARD};

/// What is known of a worker's death.
pub(super) struct Death {
    /// `None`: it was killed, and is not dead yet.
    pub(super) exit: Option<ExitStatus>,
    /// It died of that.
    pub(super) shortage: Option<Shortage>,
    /// Its sandbox has ended it for that.
    pub(super) refused: Option<FatalCall>,
    /// Why nobody could hear it, if it lived then.
    pub(super) unheard: Option<Unheard>,
    pub(super) info: WorkerInfo,
    /// The last lines that it has written to standard error.
    pub(super) stderr: Option<String>,
}

impl Death {
    /// What became of the worker; completes "the worker …".
    pub(super) fn fate(&self) -> Cow<'static, str> {
        fate(self.exit, self.unheard)
    }

    /// The error of what was lost by it.
    pub(super) fn explain(self, error: TaskError) -> TaskError {
        let error = match self.exit {
            Some(exit) => error.with_exit(exit),
            None => error,
        };
        let error = match self.refused {
            Some(call) => error.of_refused_call(call.name().as_deref()),
            None => error,
        };
        error.with_worker(self.info).with_stderr(self.stderr)
    }
}

/// Whether a worker has not been ended by its pool, for nobody could hear it any more, but has died
/// by itself. Where `/proc` does not show it (the program may have changed its root), a worker that
/// is dying looks for a moment like one that lives and has closed its connection.
pub(super) fn is_own_end(exit: Option<ExitStatus>) -> bool {
    match exit {
        Some(ExitStatus::Signal(_)) => exit != Some(SIGKILL),
        Some(ExitStatus::Code(code)) => code != 0 && code != EXIT_UNHEARD,
        None | Some(ExitStatus::Unknown | ExitStatus::Orphaned) => false,
    }
}

/// What became of a worker; completes "the worker …".
pub(super) fn fate(exit: Option<ExitStatus>, unheard: Option<Unheard>) -> Cow<'static, str> {
    let killed = || match exit {
        Some(exit) => exit.to_string(),
        None => "was killed (the system has yet to let go of it)".to_owned(),
    };
    match (exit, unheard) {
        // Nobody but the pool kills it, as a rule.
        (None | Some(SIGKILL), Some(Unheard::Closed)) => format!(
            "had closed its connection to the pool, as code does that closes descriptors which it \
             does not know, and {}",
            killed()
        )
        .into(),
        (None | Some(SIGKILL), Some(Unheard::Unwatched)) => format!(
            "could not be listened to, since the system is out of memory or of watches, and {}",
            killed()
        )
        .into(),
        (Some(ExitStatus::Code(EXIT_UNHEARD)), _) => format!(
            "{}, as a worker does that cannot wake the pool: something in it has closed \
             descriptors which it does not know",
            killed()
        )
        .into(),
        (Some(ExitStatus::Code(EXIT_CORRUPT)), _) => format!(
            "{}, as a worker does that finds nonsense in the memory which it shares with the pool",
            killed()
        )
        .into(),
        _ => killed().into(),
    }
}

/// How a process ends that the pool kills.
const SIGKILL: ExitStatus = ExitStatus::Signal(Signal::KILL.as_raw());

#[cfg(test)]
mod tests {
    use super::*;

    /// What has ended a worker that is not heard may still be something else.
    #[test]
    fn a_kill_has_a_reason_and_another_end_its_own() {
        for unheard in [Unheard::Closed, Unheard::Unwatched] {
            for exit in [None, Some(SIGKILL)] {
                let (with, without) = (fate(exit, Some(unheard)), fate(exit, None));
                assert!(
                    with.len() > without.len() && with.ends_with(&*without),
                    "{with}"
                );
            }
            let aborted = Some(ExitStatus::Signal(Signal::ABORT.as_raw()));
            assert_eq!(fate(aborted, Some(unheard)), fate(aborted, None));
        }
        let code = |code| fate(Some(ExitStatus::Code(code)), None);
        assert_eq!(code(1), "exited with code 1");
        assert!(code(EXIT_UNHEARD).starts_with("exited with code 114, as"));
        assert!(code(EXIT_CORRUPT).starts_with("exited with code 113, as"));
    }
}
