//! What becomes of the items that a dead worker had: those that were finished count, the one that
//! it ran is lost or run again, and those that it had not begun go elsewhere.

use super::Core;
use super::prepare::died_in_preparation;
use crate::engine::booking::Booking;
use crate::engine::death::Death;
use crate::engine::parent_channel::ParentChannel;
use crate::engine::peer::Peer;
use crate::engine::slot_id::SlotId;
use crate::engine::worker_slot::{Killed, Setup};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::report::PanicReport;
use crate::process::exit_status::ExitStatus;
use crate::sys;
use crate::sys::Signal;
use crate::task::chunk::Chunk;
use crate::task::options::Timeout;

/// After this many deaths of workers that had an item before them and had not begun it, as they
/// said, the next one is the item's. As many for each worker as [`Core::exited_idle`] allows.
const MAX_DEATHS: u8 = 4;
/// How a process ends that aborts.
const SIGABRT: ExitStatus = ExitStatus::Signal(Signal::ABORT.as_raw());

impl Core {
    /// Decides what becomes of all that a worker had, which runs nothing any more and had begun so
    /// many items. What it has finished is taken in first.
    pub(in crate::engine) fn take_back_items(
        &mut self,
        slot: SlotId,
        mut channel: ParentChannel,
        peer: Peer<'_>,
        begun: u64,
        death: Death,
        expected: bool,
    ) {
        let killed = self.slots[slot].killed();
        // Records after a protocol violation are not worth reading; what it had is lost or run
        // again.
        if killed != Some(Killed::ProtocolViolation) {
            let mut drained = std::mem::take(&mut self.drained);
            // What comes behind nonsense is lost with the worker.
            let _ = channel.drain_remains(&mut Booking {
                slot,
                peer,
                scheduler: &mut self.scheduler,
                drained: &mut drained,
            });
            self.settle_drained(slot, drained);
        }
        self.notify.count_bytes(&channel);
        self.slots[slot].check_deadline_next_at(None);
        let begun = self.begun_at_death(slot, begun);
        let salvaged = self.scheduler.down(slot, begun);
        for done in salvaged.finished {
            let delivery = self.notify.delivery(done, 0);
            self.notify.deliver(delivery);
        }
        if self.end.has_ended() {
            return;
        }
        // A process that was ended by a panic was not killed.
        let has_aborted = killed.is_none() && death.exit == Some(SIGABRT);
        let panic = has_aborted
            .then(|| channel.region().words().last_panic.read(begun))
            .flatten();
        let is_orphan = death.exit == Some(ExitStatus::Orphaned);
        match self.slots[slot].setup().clone() {
            Setup::Failed(error) => self.startup_failed(slot, error),
            // Not the initializer's fault, as far as anybody knows.
            Setup::Settings | Setup::Initializer if is_orphan => {
                self.scheduler.extract(|chunk| chunk.is_initializer);
            }
            stage @ (Setup::Settings | Setup::Initializer) => {
                // The initializer itself may be what was not begun.
                self.scheduler.extract(|chunk| chunk.is_initializer);
                let error = died_in_preparation(&stage, &death.fate(), panic, death.shortage);
                let error = death.explain(error);
                self.startup_gave_up(&error);
                self.startup_failed(slot, error);
            }
            Setup::Ready => match salvaged.lost {
                Some(mut lost) => {
                    if let Some(item_metrics) = lost.item_metrics_mut() {
                        let begun = channel.region().item_started();
                        item_metrics.lost(&death.info, begun, sys::now_ns());
                    }
                    self.lost(lost, killed, panic, death);
                }
                None if expected
                    || killed.is_some()
                    || is_orphan
                    || self.slots[slot].has_finished_chunk() => {}
                None => self.exited_idle(slot, death),
            },
        }
    }

    /// How many items a worker had begun that runs nothing any more.
    ///
    /// That is its own word, and a task may have changed it. If what was next had not begun, it is
    /// run again, but not forever: what hides from this would take one worker after another with
    /// it.
    fn begun_at_death(&mut self, slot: SlotId, begun: u64) -> u64 {
        if self.scheduler.running_item(slot, begun).is_some() {
            return begun;
        }
        let killed = self.slots[slot].killed();
        match self.scheduler.next_mut(slot) {
            Some(next)
                if killed == Some(Killed::ProtocolViolation)
                    || next.deaths == MAX_DEATHS
                    || next.has_emitted() =>
            {
                u64::MAX
            }
            Some(next) => {
                // One that was stopped from outside has begun nothing. If the next one is stuck
                // before the same item, the item does it.
                next.deaths = match killed {
                    Some(Killed::Unresponsive) => MAX_DEATHS,
                    _ => next.deaths + 1,
                };
                begun
            }
            None => begun,
        }
    }

    /// A worker died while it ran this item.
    ///
    /// `panic` is the one that ended the worker, if one did. It would do so again.
    fn lost(
        &mut self,
        mut chunk: Chunk,
        killed: Option<Killed>,
        panic: Option<PanicReport>,
        death: Death,
    ) {
        let has_panicked = panic.is_some();
        let is_overdue = chunk.is_overdue(sys::now_ns());
        let error = match killed {
            Some(Killed::CallDeadline) => TaskError::deadline_exceeded(true),
            Some(Killed::Unresponsive) if is_overdue => TaskError::deadline_exceeded(true),
            Some(Killed::Deadline) => TaskError::timed_out(chunk.timeout.map(Timeout::as_duration)),
            Some(Killed::Unresponsive) if chunk.timeout.is_some() => {
                TaskError::timed_out(chunk.timeout.map(Timeout::as_duration))
            }
            Some(Killed::Cancelled) => TaskError::cancelled(),
            Some(Killed::ProtocolViolation) => TaskError::new(
                TaskErrorKind::WorkerLost,
                "the worker wrote rubbish into the memory that it shares with the pool, and was \
                 killed",
            ),
            _ => match (panic, death.shortage) {
                (Some(panic), _) => TaskError::aborted(panic, &death.fate()),
                (None, Some(shortage)) => TaskError::out_of_memory(shortage, &death.fate()),
                (None, None) => TaskError::worker_lost(&death.fate()),
            },
        };
        let error = death.explain(error);
        let again =
            chunk.retries > 0 && killed != Some(Killed::Cancelled) && !has_panicked && !is_overdue;
        // The caller has some of its values.
        let again = again && !chunk.has_emitted();
        if again && !self.end.has_ended() && !chunk.is_abandoned() {
            chunk.retries -= 1;
            if let Some(item_metrics) = chunk.item_metrics_mut() {
                item_metrics.again(sys::now_ns());
            }
            self.scheduler.resubmit(chunk);
        } else {
            self.notify.fail(chunk, error);
        }
    }
}
