//! What every item of a call needs, on its way to the workers.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::broadcast::{Attachments, Broadcast, ContentId, SharedMemory};
use crate::codec;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::panic::catch::catch;
use crate::worker::context::Form;

/// A value that the function of a call gets with each item. It travels in front of the items of
/// each chunk: encoded, if it is small, and otherwise as a handle of shared memory.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// A [`Form`], and what it says.
    pub(crate) bytes: Vec<u8>,
    /// The memory that handles in the bytes mean.
    pub(crate) memory: Vec<Arc<SharedMemory>>,
}

/// What is longer goes into shared memory, once for all workers and chunks.
const MAX_INLINE: usize = 512;

/// The longest that a chunk from elsewhere may have.
pub(crate) const MAX_CONTEXT: usize = 4096;

impl Context {
    /// Encodes a value.
    ///
    /// # Errors
    /// When it cannot be encoded, or the system has no memory or descriptor to share it.
    pub(crate) fn new<C>(value: &C) -> Result<Self, TaskError>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let encoded = catch(|| {
            let inline = Self::encoded(Form::Inline, &[], value).map_err(refused)?;
            if inline.bytes.len() <= MAX_INLINE {
                return Ok(inline);
            }
            let content = ContentId::of(&inline.bytes[1..]);
            let shared = Broadcast::<C>::new(value).map_err(refused)?;
            Self::encoded(Form::Shared, &content.to_bytes(), &shared).map_err(refused)
        });
        encoded.unwrap_or_else(|panic| {
            let what = "the context's serialisation";
            Err(TaskError::panicked(TaskErrorKind::Encode, what, panic))
        })
    }

    fn encoded<T>(form: Form, name: &[u8], value: &T) -> Result<Self, codec::CodecError>
    where
        T: Serialize + 'static,
    {
        let mut bytes = vec![form as u8];
        bytes.extend(name);
        let mut attachments = Attachments::default();
        codec::encode_attached(value, &mut bytes, &mut attachments)?;
        if !attachments.descriptors().is_empty() {
            return Err(codec::CodecError::new(
                "an Fd cannot be in a context, which is decoded any number of times: pass it in \
                 the argument, or to an initializer",
            ));
        }
        Ok(Self {
            bytes,
            memory: attachments.into_memory(),
        })
    }
}

fn refused(error: impl fmt::Display) -> TaskError {
    let message = format!("cannot serialise the context: {error}");
    TaskError::new(TaskErrorKind::Encode, message)
}
