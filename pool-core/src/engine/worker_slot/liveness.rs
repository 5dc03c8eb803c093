//! Whether a worker goes on living, and why not.

/// Whether a worker goes on living. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Liveness {
    /// As far as is known.
    #[default]
    Alive,
    /// It was killed, for this reason if the pool had one, or has died. Its tasks get their
    /// outcomes at that time even if it is not gone.
    Terminating { killed: Option<Killed>, due: u64 },
}

impl Liveness {
    pub(super) fn killed(self) -> Option<Killed> {
        match self {
            Self::Alive => None,
            Self::Terminating { killed, .. } => killed,
        }
    }

    /// When its tasks get their outcomes even if it is not gone.
    #[inline]
    pub(super) fn due(self) -> Option<u64> {
        match self {
            Self::Alive => None,
            Self::Terminating { due, .. } => Some(due),
        }
    }

    /// It should be gone by then, or earlier. The first reason is the one.
    pub(super) fn terminate(&mut self, why: Option<Killed>, due: u64) {
        *self = match *self {
            Self::Alive => Self::Terminating { killed: why, due },
            Self::Terminating { killed, due: first } => Self::Terminating {
                killed: killed.or(why),
                due: first.min(due),
            },
        };
    }
}

/// Why the parent killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Killed {
    /// The running item was at its deadline.
    Deadline,
    /// The call of the running item was at its deadline.
    CallDeadline,
    /// The task was to be killed.
    Cancelled,
    /// It wrote rubbish into its region, or closed its doorbell.
    ProtocolViolation,
    /// It did not get ahead in the time that it had, whatever it said of itself.
    Unresponsive,
    /// It did not answer in time after its launch.
    Silent,
    /// Its initializer failed.
    Uninitialized,
}
