//! What runs in the fork server's process.
//!
//! It has one thread and acts on messages: it sleeps in `poll` until a message comes, a
//! process that it is to reap has died, its standby has, or the parent. It looks at the clock only
//! while it has no standby.

mod child;
mod client;
mod entrypoint;
mod event_loop;
mod forked_worker;
mod parent;
mod standby;
mod standby_process;

#[cfg(any(fuzzing, test))]
pub(crate) use client::serve_client;
pub(crate) use entrypoint::{Kept, run};
pub use forked_worker::Serve;
pub(crate) use parent::Parent;
