//! Values that all workers share, in sealed memory.
//!
//! A [`SharedMemory`] is a value's bytes in a memory file that nobody can change any more, and a
//! [`Broadcast`] is a handle of it. Encoded, a handle says which memory it means. The file goes by
//! the socket for descriptors ([`passing`](crate::passing)), with a worker's first handle, and the
//! worker keeps it until its parent says that it was freed. What a worker has made, and returns a
//! handle of, it sends before its result.
//!
//! What an encoded handle needs to live, travels with the chunk as an attachment, and what has come
//! with a result travels with the outcome.

mod attachments;
mod content;
mod content_id;
mod decoded;
mod error;
mod handle;
mod listener;
mod memory;
mod shareable;
mod shared_result;

pub(crate) use attachments::{Attachments, Belongings, files_of};
pub use content::BroadcastContent;
pub(crate) use content::Needs;
pub use content_id::ContentId;
pub use error::BroadcastError;
pub use handle::Broadcast;
pub(crate) use listener::Listener;
#[cfg(feature = "sandbox")]
pub(crate) use memory::descriptors;
pub(crate) use memory::{SharedMemory, forget_freed, name_items_by};
pub use shareable::{IntoBroadcast, Shareable};
pub(crate) use shared_result::{MAX_OFFERED_BYTES, ResultOffer, SharedResult, offer};
