//! What can be shared, and how it lies in the memory.

use std::any::TypeId;
use std::sync::Arc;

use bytemuck::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::attachments::Attachments;
use super::error::BroadcastError;
use super::memory::{Reading, Shared, SharedMemory};
use crate::codec::{self, CodecError};

/// A type that a [`Broadcast`](crate::Broadcast) can be of: `[u8]`, `[f64]`, `[[f32; 3]]` and all
/// other slices of plain data ([`bytemuck::Pod`](Pod), which can be derived), `str`, and every type
/// that can be an argument and be shared between threads.
///
/// Slices of plain data and `str` lie in the shared memory as they are, and are read there. Other
/// values lie there encoded, and each process that gets a handle decodes them once.
///
/// It cannot be implemented by others, and need not be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared with the workers of a pool",
    note = "it must be a slice of numbers, `str`, or `Serialize + DeserializeOwned + Send + Sync + 'static`"
)]
pub trait Shareable: Send + Sync + 'static {
    /// Puts it into memory.
    #[doc(hidden)]
    fn share(&self) -> Result<Arc<SharedMemory>, BroadcastError>;

    /// Finds it in memory.
    #[doc(hidden)]
    fn find(memory: &SharedMemory, reading: Reading) -> Result<&Self, CodecError>;
}

/// Puts the bytes of a `T` into memory.
fn put<T: ?Sized + 'static>(
    bytes: &[u8],
    attachments: Vec<Arc<SharedMemory>>,
    height: u32,
) -> Result<Arc<SharedMemory>, BroadcastError> {
    let of = TypeId::of::<T>();
    SharedMemory::new(bytes, attachments, Shared { of, height })
        .map_err(|error| BroadcastError::refused(&error))
}

impl<T> Shareable for T
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn share(&self) -> Result<Arc<SharedMemory>, BroadcastError> {
        let mut bytes = Vec::new();
        let mut attachments = Attachments::default();
        let height = codec::encode_shared(self, &mut bytes, &mut attachments)
            .map_err(|error| BroadcastError::not_encoded(&error))?;
        if !attachments.descriptors().is_empty() {
            return Err(BroadcastError::not_encoded(&CodecError::new(
                "an Fd cannot be in a broadcast, whose value each worker decodes any number of \
                 times: pass it beside the broadcast",
            )));
        }
        put::<T>(&bytes, attachments.into_memory(), height)
    }

    fn find(memory: &SharedMemory, reading: Reading) -> Result<&Self, CodecError> {
        memory.decoded(reading)
    }
}

impl<N: Pod + Send + Sync> Shareable for [N] {
    fn share(&self) -> Result<Arc<SharedMemory>, BroadcastError> {
        put::<Self>(codec::as_bytes(self), Vec::new(), 0)
    }

    fn find(memory: &SharedMemory, _: Reading) -> Result<&Self, CodecError> {
        codec::as_numbers(memory.bytes()?)
            .ok_or_else(|| CodecError::new("the broadcast is of another type"))
    }
}

impl Shareable for str {
    fn share(&self) -> Result<Arc<SharedMemory>, BroadcastError> {
        put::<Self>(self.as_bytes(), Vec::new(), 0)
    }

    fn find(memory: &SharedMemory, _: Reading) -> Result<&Self, CodecError> {
        memory.text()
    }
}

/// What can be made a [`Broadcast`](crate::Broadcast): a reference to anything [`Shareable`], and
/// owned vectors of numbers and strings, which are shared as slices.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be broadcast as it is",
    note = "pass a reference, as in `pool.broadcast(&table)`; only vectors of numbers and strings are taken by value",
    note = "what the reference points to must be a slice of numbers, `str`, or `Serialize + DeserializeOwned + Send + Sync + 'static`"
)]
pub trait IntoBroadcast {
    /// What the workers see.
    type Shared: Shareable + ?Sized;

    /// The value to be shared.
    #[doc(hidden)]
    fn as_shared(&self) -> &Self::Shared;
}

impl<T: Shareable + ?Sized> IntoBroadcast for &T {
    type Shared = T;

    fn as_shared(&self) -> &T {
        self
    }
}

impl<N: Pod + Send + Sync> IntoBroadcast for Vec<N> {
    type Shared = [N];

    fn as_shared(&self) -> &[N] {
        self
    }
}

impl<N: Pod + Send + Sync> IntoBroadcast for Box<[N]> {
    type Shared = [N];

    fn as_shared(&self) -> &[N] {
        self
    }
}

impl IntoBroadcast for String {
    type Shared = str;

    fn as_shared(&self) -> &str {
        self
    }
}
