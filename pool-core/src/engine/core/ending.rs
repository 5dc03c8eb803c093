//! The end of a pool: closed, or given up.

use super::Core;
use crate::engine::worker_process::Process;
use crate::engine::worker_slot::Killed;
use crate::error::build_error::BuildError;
use crate::error::task_error::TaskError;
use crate::task::chunk::Chunk;

impl Core {
    /// Tasks that emit values do not wait any more until these are read.
    pub(in crate::engine) fn lift_stream_bounds(&mut self) {
        self.is_joined = true;
        let slots = self.slots.ids();
        let in_flight = slots.flat_map(|slot| self.scheduler.in_flight(slot));
        for chunk in in_flight.chain(self.scheduler.queued()) {
            if let Some(emissions) = chunk.emissions() {
                emissions.lift_bound();
            }
        }
    }

    pub(in crate::engine) fn close(&mut self) {
        if self.end.close() {
            self.scheduler.close();
        }
    }

    /// Gives up all tasks, for this reason, and kills all workers.
    pub(in crate::engine) fn end(&mut self, reason: TaskError) {
        if !self.end.give_up(&reason) {
            return;
        }
        self.lifecycle.fail_startup(|| BuildError::from(&reason));
        self.scheduler.close();
        let queued: Vec<Chunk> = self.scheduler.drain_queue().collect();
        for chunk in queued {
            self.notify.fail(chunk, reason.clone());
        }
        for slot in self.slots.ids() {
            let Some(channel) = self.slots[slot].channel() else {
                continue;
            };
            let begun = channel.region().items_begun();
            let was_retiring = self.scheduler.is_retiring(slot);
            let salvaged = self.scheduler.down(slot, begun);
            for done in salvaged.finished {
                let delivery = self.notify.delivery(done, 0);
                self.notify.deliver(delivery);
            }
            let requeued: Vec<Chunk> = self.scheduler.drain_queue().collect();
            for chunk in salvaged.lost.into_iter().chain(requeued) {
                self.notify.fail(chunk, reason.clone());
            }
            if !was_retiring {
                self.kill(slot, Killed::Cancelled);
            }
        }
        for slot in self.slots.ids() {
            self.kill(slot, Killed::Cancelled);
        }
    }

    /// Ends everything without a poller, and gives the workers away, all of which were killed.
    pub(in crate::engine) fn give_up(&mut self, reason: TaskError) -> Vec<Process> {
        self.end(reason);
        let slots = self.slots.values_mut().filter_map(|slot| {
            let released = slot.let_go()?;
            Some(released.process)
        });
        let terminating = self.terminating.take_all();
        slots.chain(terminating).collect()
    }

    /// Whether everything has ended: tasks and workers.
    pub(in crate::engine) fn is_over(&self) -> bool {
        let closing = !self.end.is_open();
        closing
            && !self.notify.is_deciding()
            && self.scheduler.is_empty()
            && self.terminating.is_empty()
            && self.slots.values().all(|slot| slot.is_down())
    }
}
