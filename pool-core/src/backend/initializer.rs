//! The function that workers run first, as an option.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::broadcast::{Attachments, BroadcastContent, ContentId, Needs};
use crate::codec;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::catch;
use crate::shm::protocol;
use crate::task::bytes::Bytes;
use crate::worker::function::{FunctionId, Stateless};
use crate::worker::initializer::{Begun, InitializerOutcome, beginning};

/// A function to run first in each worker, with its argument.
#[derive(Debug, Clone)]
pub(super) struct Initializer {
    entry: Result<FunctionId, String>,
    /// As an item.
    argument: Result<Vec<u8>, String>,
    /// What handles in it mean, where it was encoded in this process.
    attachments: Attachments,
    /// The same where it came from another machine.
    needs: Needs,
}

/// One that makes sense.
#[derive(Debug)]
pub(super) struct ValidatedInitializer {
    pub(super) entry: FunctionId,
    pub(super) argument: Vec<u8>,
    pub(super) attachments: Attachments,
}

/// It as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct Carried {
    function: u64,
    argument: Bytes,
    needs: Needs,
}

impl Initializer {
    pub(super) fn new<F, A, R>(initializer: F, argument: &A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Serialize + DeserializeOwned + 'static,
        R: InitializerOutcome,
    {
        let mut item = Vec::new();
        let mut attachments = Attachments::default();
        let encoded = catch(|| {
            protocol::append_item(&mut item, |out| {
                codec::encode_attached(argument, out, &mut attachments)
            })
            .map_err(|error| error.to_string())
        });
        Self {
            entry: FunctionId::of::<_, A, Begun>(&beginning(initializer))
                .map_err(|error| error.to_string()),
            argument: match encoded {
                Ok(Ok(())) => Ok(item),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(panic.message),
            },
            attachments,
            needs: Needs::default(),
        }
    }

    /// The error says what to do.
    pub(super) fn check(self) -> Result<ValidatedInitializer, String> {
        let entry = self.entry?;
        let mut argument = self
            .argument
            .map_err(|error| format!("cannot serialise the initializer's argument: {error}"))?;
        let mut attachments = self.attachments;
        if !self.needs.is_empty() {
            let resolved = self.needs.resolve(&Needs::default()).map_err(|error| {
                format!("cannot deserialise the initializer's argument: {error}")
            })?;
            resolved.rebase(&mut argument);
            attachments = Attachments::of_memory(resolved.into_memory());
        }
        Ok(ValidatedInitializer {
            entry,
            argument,
            attachments,
        })
    }

    /// Whether there is something in the argument that no other machine can have.
    pub(super) fn has_descriptors(&self) -> bool {
        !self.attachments.descriptors().is_empty()
    }

    fn all_needs(&self) -> Needs {
        match &self.argument {
            Ok(argument) if !self.attachments.is_empty() => {
                Needs::of_value(argument, self.attachments.memory())
            }
            _ => self.needs.clone(),
        }
    }

    /// See [`EncodedChunk::contents`](crate::EncodedChunk::contents).
    pub(super) fn contents(&self) -> Vec<BroadcastContent> {
        self.all_needs().contents()
    }

    /// See [`EncodedChunk::missing`](crate::EncodedChunk::missing).
    pub(super) fn missing(&self) -> Vec<ContentId> {
        self.needs.missing(&Needs::default())
    }

    /// See [`EncodedChunk::provide`](crate::EncodedChunk::provide).
    pub(super) fn provide(&mut self, content: &BroadcastContent) -> bool {
        self.needs.provide(content)
    }

    /// As it travels; the error is that of [`check`](Self::check).
    pub(super) fn to_carried(&self) -> Result<Carried, String> {
        Ok(Carried {
            function: self.entry.clone()?.number(),
            argument: self.argument.clone()?.into(),
            needs: self.all_needs(),
        })
    }

    #[cfg(test)]
    pub(super) fn forge_argument(&mut self, argument: Vec<u8>) {
        self.argument = Ok(argument);
    }

    /// What has come from anywhere.
    pub(super) fn from_carried(carried: Carried) -> Result<Self, TaskError> {
        let Carried {
            function,
            argument,
            needs,
        } = carried;
        let argument = argument.as_slice().into_owned();
        let is_item = protocol::split_item(&argument).is_some_and(|(_, rest)| rest.is_empty());
        if !is_item {
            let message = "these bytes are no options: the initializer has no argument";
            return Err(TaskError::new(TaskErrorKind::Decode, message));
        }
        let entry = FunctionId::from_number(function).ok_or_else(|| {
            let message = "the initializer is no function that this program calls";
            TaskError::new(TaskErrorKind::Invalid, message)
        })?;
        Ok(Self {
            entry: Ok(entry),
            argument: Ok(argument),
            attachments: Attachments::default(),
            needs,
        })
    }
}
