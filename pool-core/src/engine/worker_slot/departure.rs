//! Whether a worker is to go: by plan, and not by a kill.

use crate::observe::worker_exit::ExitReason;

/// Whether a worker is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) enum Departure {
    /// It is not.
    #[default]
    Stays,
    /// When its successor is ready, or when it has finished what it runs.
    Planned(ExitReason),
    /// It was told to.
    Retired(ExitReason),
}

impl Departure {
    pub(super) fn is_retired(self) -> bool {
        matches!(self, Self::Retired(_))
    }

    /// It is to go for this reason, if it is not to go for another one.
    pub(super) fn plan(&mut self, reason: ExitReason) {
        if *self == Self::Stays {
            *self = Self::Planned(reason);
        }
    }

    /// It is to go for this reason, whatever was planned.
    pub(super) fn plan_instead(&mut self, reason: ExitReason) {
        if !self.is_retired() {
            *self = Self::Planned(reason);
        }
    }

    /// It was told to go: for the reason that was planned, or else for this one.
    pub(super) fn retire(&mut self, otherwise: ExitReason) {
        let reason = match *self {
            Self::Stays => otherwise,
            Self::Planned(reason) | Self::Retired(reason) => reason,
        };
        *self = Self::Retired(reason);
    }
}
