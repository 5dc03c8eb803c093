//! What comes before a worker's first task: its settings, and the initializer.

use super::Core;
use crate::codec;
use crate::engine::positions::PositionId;
use crate::engine::slot_id::SlotId;
use crate::engine::worker_slot::{Killed, Setup};
use crate::error::build_error::BuildError;
use crate::error::task_error::{Shortage, TaskError, TaskErrorKind};
use crate::panic::report::PanicReport;
use crate::shm::protocol;
use crate::task::chunk::Chunk;

impl Core {
    /// A worker was reached: it is sent what comes first.
    pub(in crate::engine) fn prepare(&mut self, slot: SlotId) {
        let Some((entry, settings)) = &self.config.lifecycle.settings else {
            self.initialize(slot);
            return;
        };
        let entry = *entry;
        let mut item = Vec::new();
        let settings = settings.of_place(self.slots[slot].position().map_or(0, PositionId::index));
        let encoded = protocol::append_item(&mut item, |out| codec::encode(&settings, out));
        debug_assert!(encoded.is_ok(), "settings can be encoded");
        self.run_first(slot, Chunk::initializer(entry, item));
    }

    /// A worker has applied its settings.
    fn initialize(&mut self, slot: SlotId) {
        match &self.config.initializer {
            None => {
                self.is_ready_now(slot);
            }
            Some((entry, item)) => {
                self.slots[slot].begin_initializer();
                let mut chunk = Chunk::initializer(*entry, item.clone());
                chunk.attach(self.config.attachments.clone());
                self.run_first(slot, chunk);
            }
        }
    }

    fn run_first(&mut self, slot: SlotId, chunk: Chunk) {
        self.scheduler.prepare(slot, chunk);
        if self.lifecycle.is_starting() || self.is_successor(slot) {
            // Somebody waits for its end, but not as the leader.
            self.listen_for_orphans();
        }
        self.send(slot);
    }

    /// A worker could run a task.
    fn is_ready_now(&mut self, slot: SlotId) {
        self.slots[slot].is_ready();
        self.lifecycle.is_ready(self.slots[slot].position());
        if self.is_successor(slot) {
            self.lifecycle.wants_maintenance();
        }
        self.is_idle_from_now(slot);
    }

    /// A worker has finished its settings or its initializer.
    pub(in crate::engine) fn prepared(&mut self, slot: SlotId, failure: Option<TaskError>) {
        let failure = failure.or_else(|| self.too_large(slot));
        match (self.slots[slot].setup(), failure) {
            (Setup::Settings, None) => self.initialize(slot),
            (Setup::Settings, Some(error)) => {
                let why = error
                    .panic_message()
                    .map_or_else(|| error.to_string(), str::to_owned);
                let error = TaskError::new(
                    TaskErrorKind::Launch,
                    format!("a worker cannot be set up as the pool's builder asks: {why}"),
                );
                self.slots[slot].setup_failed(error.clone());
                self.kill(slot, Killed::Uninitialized);
                self.startup_gave_up(&error);
            }
            (_, None) => {
                self.is_ready_now(slot);
            }
            (_, Some(error)) => {
                let error = TaskError::initializer(&error);
                self.slots[slot].setup_failed(error.clone());
                self.kill(slot, Killed::Uninitialized);
                self.startup_gave_up(&error);
            }
        }
    }

    /// If nothing is missing but that initializers return, the pool is built without that. Says
    /// whether it is.
    pub(in crate::engine) fn goes_on_without_initializers(&mut self) -> bool {
        let goes_on = self.slots.values().all(|slot| match slot.setup() {
            Setup::Ready => true,
            Setup::Initializer => slot.up().is_some(),
            Setup::Settings | Setup::Failed(_) => false,
        });
        if goes_on {
            self.lifecycle.is_built();
        }
        goes_on
    }

    /// Why a worker that has done nothing yet would be replaced at once, and the next one as well.
    fn too_large(&self, slot: SlotId) -> Option<TaskError> {
        let limit = self.config.lifecycle.max_memory?;
        let resident = self.resident(slot);
        (resident > limit).then(|| {
            TaskError::new(
                TaskErrorKind::Initializer,
                format!(
                    "a worker holds {resident} bytes of memory before its first task, and \
                     max_memory_per_child is {limit}: raise it"
                ),
            )
        })
    }

    /// If the pool is being built, that has failed for this reason.
    pub(in crate::engine) fn startup_gave_up(&mut self, reason: &TaskError) {
        if self.lifecycle.fail_startup(|| BuildError::from(reason)) {
            self.end(reason.clone());
        }
    }
}

/// A worker died while it was at this; of a panic, if there is one. What became of it completes
/// "the worker …".
pub(in crate::engine) fn died_in_preparation(
    stage: &Setup,
    fate: &str,
    panic: Option<PanicReport>,
    shortage: Option<Shortage>,
) -> TaskError {
    if let (Setup::Initializer, Some(panic)) = (stage, panic) {
        return TaskError::initializer(&TaskError::aborted(panic, fate));
    }
    if let (Setup::Initializer, Some(shortage)) = (stage, shortage) {
        return TaskError::initializer(&TaskError::out_of_memory(shortage, fate));
    }
    let (kind, what) = match stage {
        Setup::Settings => (
            TaskErrorKind::Launch,
            "a worker cannot be set up as the pool's builder asks",
        ),
        _ => (TaskErrorKind::Initializer, "the initializer failed"),
    };
    TaskError::new(kind, format!("{what}: the worker {fate}"))
}
