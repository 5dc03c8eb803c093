//! `tracing` events and spans on their way from a worker to the parent's subscriber.
//!
//! In the worker, a small [`subscriber`] writes what happens as [frames](frame) into a pipe that it
//! never waits for. In the parent, the pipe is read like captured output, and each event and span
//! is [replayed](replay) to the subscriber.

mod call_span;
mod callsite;
mod frame;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod level;
mod own_spans;
mod replay;
mod subscriber;

pub use call_span::Origin;
pub(crate) use call_span::{LetGo, OpenSpan};
pub(crate) use frame::{Frames, Said};
pub(crate) use replay::{Audience, WorkerSpans};
pub(crate) use subscriber::{
    begin_frame, begin_task, forward, has_item_spans, item_span, set_channel,
};
