//! `tracing` events on their way from a worker to the parent's subscriber.
//!
//! In the worker, a small [`subscriber`] writes what happens as [frames](frame) into a pipe that it
//! never waits for. In the parent, the pipe is read like captured output, and each event is
//! [replayed](replay) to the subscriber.

mod call_span;
mod callsite;
mod frame;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod replay;
mod subscriber;

pub use call_span::Origin;
pub(crate) use call_span::{LetGo, OpenSpan};
pub(crate) use frame::{Frames, Record};
pub(crate) use replay::Audience;
pub(crate) use subscriber::{begin_task, forward, set_channel};
