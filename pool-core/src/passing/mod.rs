//! Descriptors that go to another process of the pool: see `README.md` beside this file.

mod arrived;
mod closing;
mod fd;
mod inbox;
mod message;
mod outbox;
mod outgoing;
mod result;

pub(crate) use arrived::{Arrived, arrived_here, lend};
pub(crate) use closing::close_elsewhere;
pub use fd::Fd;
pub(crate) use inbox::{
    discard_packets, expect_descriptors, memory_is_lost, open_inbox, take_freed, take_memory,
};
pub(crate) use message::Key;
pub(crate) use outbox::Outbox;
pub(crate) use outgoing::{Outgoing, in_places, of_items};
pub(crate) use result::{ResultFiles, receive_result, send_result};

/// The most descriptors that one argument or result may have.
pub(crate) const MAX_DESCRIPTORS: usize = 128;
