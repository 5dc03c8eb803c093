//! What runs in the fork server's process.
//!
//! It has one thread, no timers, and lives on what it is told: it sleeps in `poll` until a message
//! comes, a process that it is to reap has died, or the parent has.

mod child;
mod client;
mod event_loop;
mod newborn;
mod settle;

pub use newborn::Serve;
pub(crate) use settle::run;
