//! What a pool knows of the coming and going of its workers: its positions, the first launches, and
//! how often workers have failed to start. See "Lifecycle" in `README.md`.
//!
//! It decides what a failure means; the [`Core`](super::core::Core) acts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::positions::{PositionId, Positions};
use super::slot_id::SlotId;
use crate::error::build_error::BuildError;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// After this many failures in a row to get a worker going, the pool gives up.
const MAX_FAILURES: u32 = 3;
/// How long the first replacement of a worker that failed to start waits, in nanoseconds; the next
/// ones wait twice as long each.
const BACK_OFF_NS: u64 = Duration::from_millis(10).as_nanos() as u64;

/// See the module.
pub(super) struct Lifecycle {
    positions: Positions,
    /// How many of them are open, for readers without the lock.
    processes: Arc<AtomicUsize>,
    /// Something has happened that may make it necessary to replace a worker.
    maintenance_due: bool,
    /// The first launches and initializers: what `build` waits for.
    startup: Startup,
    /// The number of the last worker that was launched.
    last_number: u32,
    /// Failures in a row to get a worker going.
    failures: u32,
    /// The number of the last worker that was on its way when one failed.
    failed_until: u32,
    /// Workers that died without having done anything, since one has.
    idle_deaths: u32,
}

/// How far the first workers are.
#[derive(Debug)]
pub(super) enum Startup {
    /// In these positions none has been ready yet.
    Waiting(BTreeSet<PositionId>),
    /// There has been one in all of them.
    Done,
    /// One could not be started, or its initializer has failed.
    Failed(BuildError),
}

/// What a failure means for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// Nothing.
    None,
    /// The next launch waits this long, in nanoseconds.
    Pause(u64),
    /// The pool gives up.
    GiveUp,
}

impl Lifecycle {
    pub(super) fn new(processes: usize) -> Self {
        let positions = Positions::new(processes);
        Self {
            startup: Startup::Waiting(positions.all().collect()),
            positions,
            processes: Arc::new(AtomicUsize::new(processes)),
            maintenance_due: false,
            last_number: 0,
            failures: 0,
            failed_until: 0,
            idle_deaths: 0,
        }
    }

    /// Where workers work.
    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// How many positions are open, for readers without the lock.
    pub(super) fn processes(&self) -> &Arc<AtomicUsize> {
        &self.processes
    }

    /// Something has happened that may make it necessary to replace a worker.
    pub(super) fn wants_maintenance(&mut self) {
        self.maintenance_due = true;
    }

    pub(super) fn is_maintenance_due(&self) -> bool {
        self.maintenance_due
    }

    /// The same, and from now on it is not.
    pub(super) fn take_maintenance(&mut self) -> bool {
        std::mem::take(&mut self.maintenance_due)
    }

    /// A worker is launched for this position. Gives its number, and how many workers the position
    /// has had before.
    pub(super) fn launch(&mut self, position: PositionId) -> (u32, u32) {
        self.last_number += 1;
        (self.last_number, self.positions.generation(position))
    }

    /// A worker of this position was reached.
    pub(super) fn reached(&mut self, position: PositionId) {
        self.positions.generate(position);
    }

    /// The worker of this slot will be the next active one.
    pub(super) fn appoint(&mut self, position: PositionId, slot: SlotId) {
        self.positions.appoint(position, slot);
    }

    /// The active worker retires, if there is a successor: that becomes the active one.
    pub(super) fn succeed(&mut self, position: PositionId) -> Option<SlotId> {
        let successor = self.positions.succeed(position)?;
        // It may have been given everything that it may be given, or be too old already.
        self.maintenance_due = true;
        Some(successor)
    }

    /// There will be no successor after all. Gives the slot of the active worker, which must do
    /// without.
    pub(super) fn dismiss_successor(&mut self, position: PositionId) -> Option<SlotId> {
        self.positions.dismiss_successor(position);
        self.maintenance_due = true;
        self.positions.active(position)
    }

    /// A worker has retired from the position, and lives.
    pub(super) fn left(&mut self, position: PositionId) {
        self.positions.left(position);
    }

    /// It is dead.
    pub(super) fn is_gone(&mut self, position: PositionId) {
        self.positions.is_gone(position);
        self.maintenance_due = true;
    }

    /// The position is empty from now on. Gives the slots that it had, the active one first.
    pub(super) fn clear(&mut self, position: PositionId) -> impl Iterator<Item = SlotId> + use<> {
        self.positions.clear(position)
    }

    /// There is to be no worker in this position.
    pub(super) fn close(&mut self, position: PositionId) {
        self.positions.close(position);
        self.publish_processes();
    }

    /// One more position: one that was closed, or a new one.
    pub(super) fn open_another(&mut self) -> PositionId {
        let position = self.positions.add();
        self.publish_processes();
        position
    }

    fn publish_processes(&self) {
        self.processes
            .store(self.positions.open(), Ordering::Relaxed);
    }

    pub(super) fn startup(&self) -> &Startup {
        &self.startup
    }

    /// Whether the pool is being built.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.startup, Startup::Waiting(_))
    }

    /// Nobody waits any longer for the first workers that are not ready.
    pub(super) fn is_built(&mut self) {
        self.startup = Startup::Done;
    }

    /// If the pool is being built, that has failed for this reason; says whether it was.
    pub(super) fn fail_startup(&mut self, reason: impl FnOnce() -> BuildError) -> bool {
        let is_waiting = self.is_starting();
        if is_waiting {
            self.startup = Startup::Failed(reason());
        }
        is_waiting
    }

    /// The worker with this number did not come so far that it could run a task.
    ///
    /// Workers that were on their way already when the last one failed are no further attempt: one
    /// cause may have hit them all.
    pub(super) fn start_failed(&mut self, number: u32) -> Setback {
        if number > self.failed_until {
            self.failures += 1;
            self.failed_until = self.last_number;
        }
        if self.failures >= MAX_FAILURES {
            Setback::GiveUp
        } else {
            Setback::Pause(back_off(self.failures))
        }
    }

    /// A worker of this position could run a task.
    pub(super) fn is_ready(&mut self, position: Option<PositionId>) {
        self.failures = 0;
        if let (Startup::Waiting(missing), Some(position)) = (&mut self.startup, position) {
            missing.remove(&position);
            if missing.is_empty() {
                self.startup = Startup::Done;
            }
        }
    }

    /// A worker has finished a chunk.
    pub(super) fn chunk_finished(&mut self) {
        self.idle_deaths = 0;
    }

    /// A worker died that had nothing to do and had never done anything. One may be killed by
    /// somebody; when all are, they do not survive in this pool.
    pub(super) fn died_idle(&mut self) -> Setback {
        self.idle_deaths += 1;
        let open = self.positions.open();
        let limit = (4 * open).max(16) as u32;
        if self.idle_deaths > limit {
            Setback::GiveUp
        } else if self.idle_deaths as usize > open {
            Setback::Pause(back_off(self.idle_deaths))
        } else {
            Setback::None
        }
    }

    /// A worker has become one of so many that were killed and are not gone. Tasks that nothing can
    /// end would fill the machine with such workers.
    pub(super) fn does_not_die(&self, terminating: usize) -> Setback {
        match terminating.saturating_sub(self.positions.open()) {
            0 => Setback::None,
            many => Setback::Pause(back_off(many as u32)),
        }
    }
}

/// How long to wait after so many failures, in nanoseconds.
fn back_off(failures: u32) -> u64 {
    BACK_OFF_NS << failures.saturating_sub(1).min(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::build_error::BuildErrorKind;

    #[test]
    fn one_cause_that_hits_all_workers_is_one_failure() {
        let mut lifecycle = Lifecycle::new(3);
        let positions: Vec<PositionId> = lifecycle.positions().all().collect();
        let launch = |lifecycle: &mut Lifecycle| {
            let numbers = positions
                .iter()
                .map(|&position| lifecycle.launch(position).0);
            numbers.collect::<Vec<u32>>()
        };
        for setback in [
            Setback::Pause(BACK_OFF_NS),
            Setback::Pause(2 * BACK_OFF_NS),
            Setback::GiveUp,
        ] {
            for number in launch(&mut lifecycle) {
                assert_eq!(lifecycle.start_failed(number), setback);
            }
        }
        lifecycle.is_ready(None);
        let number = launch(&mut lifecycle)[0];
        assert_eq!(
            lifecycle.start_failed(number),
            Setback::Pause(BACK_OFF_NS),
            "failures in a row count"
        );
    }

    #[test]
    fn idle_deaths_count_until_a_worker_works() {
        let mut lifecycle = Lifecycle::new(1);
        assert_eq!(
            lifecycle.died_idle(),
            Setback::None,
            "somebody may kill one"
        );
        assert_eq!(lifecycle.died_idle(), Setback::Pause(2 * BACK_OFF_NS));
        lifecycle.chunk_finished();
        for _ in 0..16 {
            assert_ne!(lifecycle.died_idle(), Setback::GiveUp);
        }
        assert_eq!(lifecycle.died_idle(), Setback::GiveUp);
    }

    #[test]
    fn a_pool_is_started_when_all_positions_have_had_a_worker() {
        let mut lifecycle = Lifecycle::new(2);
        let positions: Vec<PositionId> = lifecycle.positions().all().collect();
        for _ in 0..2 {
            // The second one has come after the first.
            lifecycle.is_ready(Some(positions[0]));
            assert!(lifecycle.is_starting());
        }
        lifecycle.is_ready(Some(positions[1]));
        assert!(!lifecycle.fail_startup(|| BuildError::new(BuildErrorKind::Launch, "late")));
        assert!(matches!(lifecycle.startup(), Startup::Done));
    }
}
