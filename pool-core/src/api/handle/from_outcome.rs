//! What the outcome of a call is read as.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::result_cell::{Collector, ResultCell, SingleResult};
use crate::api::decode::{Collect, decode_bytes, decode_owned};
use crate::api::measured::Measured;
use crate::error::task_error::TaskError;
use crate::task::bytes::Bytes;
use crate::task::chunk_outcome::ChunkOutcome;

/// What a [`Handle`](crate::Handle) can give: what is decoded of the outcomes that arrive in `C`.
pub trait FromOutcome<C: ResultCell>: Sized {
    /// The outcome as a value.
    #[doc(hidden)]
    fn from_outcome(outcome: C::Outcome) -> Self;

    /// The same where the outcome is going to be read again.
    #[doc(hidden)]
    fn from_shared(outcome: &C::Outcome) -> Self {
        Self::from_outcome(outcome.clone())
    }

    /// Whether nothing has failed.
    #[doc(hidden)]
    fn is_success(&self) -> bool;
}

impl<R: DeserializeOwned + 'static> FromOutcome<SingleResult> for Result<R, TaskError> {
    fn from_outcome(outcome: Result<Bytes, TaskError>) -> Self {
        decode_owned(outcome?)
    }

    fn from_shared(outcome: &Result<Bytes, TaskError>) -> Self {
        match outcome {
            Ok(bytes) => decode_bytes(bytes),
            Err(error) => Err(error.clone()),
        }
    }

    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

impl<T: Collect> FromOutcome<Collector> for T {
    fn from_outcome(mut parts: Vec<Arc<ChunkOutcome>>) -> Self {
        parts.sort_unstable_by_key(|part| part.first);
        let mut all = T::with_room(parts.iter().map(|part| part.count as usize).sum());
        for part in parts {
            all.add(part);
        }
        all
    }

    fn is_success(&self) -> bool {
        Collect::is_success(self)
    }
}

impl<R: DeserializeOwned + 'static> FromOutcome<Collector> for Measured<R> {
    fn from_outcome(mut parts: Vec<Arc<ChunkOutcome>>) -> Self {
        Self::read_one(parts.pop())
    }

    fn is_success(&self) -> bool {
        self.outcome.is_ok()
    }
}
