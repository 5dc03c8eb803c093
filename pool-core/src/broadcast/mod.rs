//! Values that all workers share, in sealed memory.
//!
//! A [`SharedMemory`] is a value's bytes in a memory file that nobody can change any more, and a
//! [`Broadcast`] is a handle of it. Encoded, a handle says which memory it means and where the
//! encoding process has it; a worker opens it there, by `/proc`, the first time, and keeps it until
//! its parent says that some memory was freed (the word `freed` in the region), when it looks which.
//!
//! What an encoded handle needs to live, travels with the chunk as an attachment.

mod error;
mod handle;
mod listener;
mod memory;
mod passage;
mod shareable;

pub use error::BroadcastError;
pub use handle::Broadcast;
pub(crate) use listener::Listener;
pub(crate) use memory::{SharedMemory, forget_freed};
pub(crate) use passage::{TICKET, arriving, leaving};
pub use shareable::{IntoBroadcast, Shareable};
