//! The states of a slot's worker.

use crate::engine::parent_channel::ParentChannel;
use crate::engine::worker_process::Process;

/// The life of a slot's worker.
pub(in crate::engine) enum Phase {
    /// There is none; not to be launched before this time, in nanoseconds.
    Down { not_before: u64 },
    /// The supervisor is launching one.
    Launching,
    /// It was launched and has not answered.
    Starting { process: Process, give_up: u64 },
    /// It works, or is on its way out.
    Up {
        process: Process,
        channel: Box<ParentChannel>,
    },
    /// It is dead, and its exit status is on its way.
    Dying {
        process: Process,
        channel: Option<Box<ParentChannel>>,
    },
}

impl Phase {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Launching => "launching",
            Self::Starting { .. } => "starting",
            Self::Up { .. } => "up",
            Self::Dying { .. } => "dying",
        }
    }

    /// The worker process, if there is one.
    pub(in crate::engine) fn process(&self) -> Option<&Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Up { process, .. }
            | Self::Dying { process, .. } => Some(process),
            Self::Down { .. } | Self::Launching => None,
        }
    }

    /// When a slot's worker is to be asked how it ended, in nanoseconds; `u64::MAX`: not yet.
    pub(in crate::engine) fn asked_at(&self) -> u64 {
        self.process().map_or(u64::MAX, Process::asked_at)
    }
}

/// What a slot had, which has no worker any more.
pub(in crate::engine) struct Released {
    pub(in crate::engine) process: Process,
    /// If it was reached.
    pub(in crate::engine) channel: Option<Box<ParentChannel>>,
    /// It is dead, and was waiting for its exit status.
    pub(in crate::engine) was_dying: bool,
}
