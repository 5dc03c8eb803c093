//! What became of one item, as it travels between pools and machines.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use crate::broadcast::{BroadcastContent, Needs, SharedMemory};
use crate::codec;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::item_run::Run;
use crate::process::worker_info::WorkerInfo;

/// What became of one item: the bytes of its result or an error, and what is known of its run.
///
/// One comes from [`EncodedChunk::run`](crate::EncodedChunk::run), travels as serde says or as
/// [`to_bytes`](Self::to_bytes), and ends in a [`Completion`](crate::Completion). What it says is
/// checked there and when the result is decoded: it may come from a machine that went wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub(crate) result: Result<Bytes, TaskError>,
    /// How long the item kept its worker, in nanoseconds; 0: that is not known.
    pub(crate) took_ns: u64,
    /// What was measured of it, if it was.
    pub(crate) run: Option<Run>,
    /// How many workers have died under the item.
    pub(crate) losses: u32,
    /// The memory that handles in the result mean.
    pub(crate) needs: Needs,
}

impl Outcome {
    pub(crate) fn new(result: Result<Bytes, TaskError>) -> Self {
        Self {
            result,
            took_ns: 0,
            run: None,
            losses: 0,
            needs: Needs::default(),
        }
    }

    /// A value that an item of this process has emitted, in which there may be handles of this
    /// memory, and of what came with the value.
    pub(crate) fn of_emitted(
        result: Result<Bytes, TaskError>,
        memory: &[Arc<SharedMemory>],
    ) -> Self {
        let mut outcome = Self::new(result);
        if let Ok(bytes) = &outcome.result {
            let own = bytes.belongings().map_or(&[][..], |it| &it.memory);
            if !own.is_empty() || !memory.is_empty() {
                let all = [own, memory].concat();
                outcome.needs = Needs::of_value(&bytes.as_slice(), &all);
            }
        }
        outcome
    }

    /// A result with these bytes, as they were [given](Self::bytes) where the item ran.
    #[must_use]
    pub fn of_value(bytes: Vec<u8>) -> Self {
        Self::new(Ok(bytes.into()))
    }

    /// The bytes of the result, if there is one. They mean something to the function's type alone.
    ///
    /// # Errors
    /// The error that the item has instead.
    pub fn bytes(&self) -> Result<Vec<u8>, &TaskError> {
        let bytes = self.result.as_ref()?;
        Ok(bytes.as_slice().into_owned())
    }

    /// The error, if the item has failed.
    #[must_use]
    pub fn error(&self) -> Option<&TaskError> {
        self.result.as_ref().err()
    }

    /// The same of an item that this worker ran.
    #[must_use]
    pub fn with_worker(mut self, worker: &WorkerInfo) -> Self {
        if let Some(run) = &mut self.run {
            run.worker = Some(worker.clone());
        }
        self.result = self.result.map_err(|error| match error.worker() {
            Some(_) => error,
            None => error.with_worker(worker.clone()),
        });
        self
    }

    /// The same of an item that ran on the machine of this name, in whatever worker.
    #[must_use]
    pub fn with_machine(mut self, machine: &str) -> Self {
        if let Some(run) = &mut self.run {
            run.worker = run.worker.take().map(|it| it.with_machine(machine));
        }
        self.result = self.result.map_err(|error| error.with_machine(machine));
        self
    }

    /// About how many bytes the result or the error has.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.result {
            Ok(bytes) => bytes.len(),
            Err(_) => 256,
        }
    }

    /// How long the item kept its worker; zero: that is not known. Of a lazy map it decides how
    /// many items the next chunks have.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.took_ns)
    }

    /// The same of an item that kept its worker for so long.
    #[must_use]
    pub fn with_took(mut self, took: Duration) -> Self {
        self.took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self
    }

    /// The same of an item under which this many workers have died, more than are noted already:
    /// they count as [attempts](crate::TaskMetrics::attempt).
    #[must_use]
    pub fn with_losses(mut self, losses: u32) -> Self {
        self.losses = self.losses.saturating_add(losses);
        self
    }

    /// The values that handles in the result mean, as far as they are in this process: what is to
    /// be sent with the outcome to those who [miss](crate::Completion::missing) it.
    #[must_use]
    pub fn contents(&self) -> Vec<BroadcastContent> {
        self.needs.contents()
    }

    /// Takes a value that handles in the result mean. `false`: they mean no such value.
    pub fn provide(&mut self, content: &BroadcastContent) -> bool {
        self.needs.provide(content)
    }

    /// The outcome as bytes, without the [contents](Self::contents).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The outcome that these bytes are, which may come from anywhere.
    ///
    /// # Errors
    /// Of kind [`Decode`](TaskErrorKind::Decode), when they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TaskError> {
        from_bytes(bytes, "outcome")
    }
}

impl From<TaskError> for Outcome {
    fn from(error: TaskError) -> Self {
        Self::new(Err(error))
    }
}

pub(crate) fn to_bytes<T: Serialize + 'static>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode(value, &mut bytes).expect("it has nothing that cannot be encoded");
    bytes
}

pub(crate) fn from_bytes<T: serde::de::DeserializeOwned + 'static>(
    bytes: &[u8],
    what: &str,
) -> Result<T, TaskError> {
    codec::decode(bytes).map_err(|error| {
        TaskError::new(
            TaskErrorKind::Decode,
            format!("these bytes are no {what}: {error}"),
        )
    })
}
