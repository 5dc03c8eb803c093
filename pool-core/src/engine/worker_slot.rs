//! What the parent has of each worker process.

use super::Process;
use super::parent_channel::ParentChannel;
use super::positions::PositionId;
use crate::observe::worker_exit::ExitReason;

/// Room for one worker process.
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// Where its worker works or will; see [`Positions`](super::positions::Positions).
    pub(super) position: Option<PositionId>,
    /// The number of its worker, or of the last that it had.
    pub(super) number: u32,
    /// How many workers its position had had when it was launched.
    pub(super) generation: u32,
    /// Where the initializer stands: `Err` with the reason when it failed in this worker.
    pub(super) initialized: Initialized,
    /// When to look at the running item's deadline, in nanoseconds of the monotonic clock.
    pub(super) deadline: Option<u64>,
    /// How far the worker was when a deadline was last looked at, and when it was first seen there,
    /// in nanoseconds of the monotonic clock.
    pub(super) overdue: Option<(u64, u64)>,
    /// How many launches in a row have met a dying starter.
    pub(super) lost_starters: u8,
    /// Whether this worker has finished a load.
    pub(super) has_worked: bool,
    /// What this worker has done.
    pub(super) tally: Tally,
    /// Why the worker was killed, if it was.
    pub(super) killed: Option<Killed>,
    /// When its tasks get their outcomes even if the worker is not gone, which was killed or has
    /// died, in nanoseconds of the monotonic clock.
    pub(super) death_due: Option<u64>,
    /// When it was reached, in nanoseconds of the monotonic clock.
    pub(super) born: u64,
    /// Since when it has been idle, if it is. Only kept where idle workers go.
    pub(super) idle_since: u64,
    /// The position that its worker had, if that is on the way out.
    pub(super) leaves: Option<PositionId>,
    /// There could be no successor for its worker.
    pub(super) is_alone: bool,
    /// Why the worker is to be replaced, if it is.
    pub(super) recycle: Option<ExitReason>,
    /// Why the worker was retired, if it was.
    pub(super) retired: Option<ExitReason>,
    /// The worker cannot ring: how it is looked after.
    pub(super) unheard: Option<Unheard>,
}

/// A living worker that has no doorbell any more finishes what it runs, and the parent looks for
/// that now and then. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unheard {
    pub(super) since: u64,
    pub(super) look_at: u64,
}

impl Slot {
    /// One without a worker.
    pub(super) fn new(position: Option<PositionId>) -> Self {
        Self {
            phase: Phase::Down { not_before: 0 },
            position,
            number: 0,
            generation: 0,
            initialized: Initialized::Unset,
            deadline: None,
            overdue: None,
            lost_starters: 0,
            has_worked: false,
            tally: Tally::default(),
            killed: None,
            death_due: None,
            born: 0,
            idle_since: 0,
            leaves: None,
            is_alone: false,
            recycle: None,
            retired: None,
            unheard: None,
        }
    }

    /// The running item's deadline is to be looked at then, or earlier.
    pub(super) fn look_at(&mut self, due: u64) {
        if self.deadline.is_none() {
            // What was seen before was of other items.
            self.overdue = None;
        }
        self.deadline = Some(self.deadline.map_or(due, |earlier| earlier.min(due)));
    }
}

/// What a worker has done since it was reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// How long the loads took that it has finished, by its own word.
    pub(super) busy_ns: u64,
    /// Items of these loads.
    pub(super) items: u64,
}

/// How far a worker's initializer is.
#[derive(Debug, Clone)]
pub(super) enum Initialized {
    /// It applies its settings, before the initializer.
    Unset,
    /// It runs, or has not begun.
    Pending,
    /// It has finished, or there is none.
    Yes,
    /// It failed.
    Failed(crate::error::task_error::TaskError),
}

/// The life of a slot's worker.
pub(super) enum Phase {
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
    /// The worker process, if there is one.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Up { process, .. }
            | Self::Dying { process, .. } => Some(process),
            Self::Down { .. } | Self::Launching => None,
        }
    }

    pub(super) fn into_linked(self) -> Option<Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Up { process, .. }
            | Self::Dying { process, .. } => Some(process),
            Self::Down { .. } | Self::Launching => None,
        }
    }
}

/// Why the parent killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// The running item was at its deadline.
    Deadline,
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
