//! What workers print, read by a thread of its own and delivered by another.
//!
//! The [`reader`] sleeps on the workers' pipes and empties them; it waits for nobody, so that no
//! task waits for it. The [`handler_thread`] gives what was read to the user's handlers, which may
//! take as long as they like; between the two is a queue with a limit. There are such threads only
//! in pools that capture something. When a worker has died, the supervisor empties its pipes
//! itself, before it reports the lost task.

mod handler_thread;
mod lines;
mod reader;
#[cfg(feature = "tracing")]
mod span_index;
mod tail;
mod worker_pipes;

pub(super) use reader::Capture;
pub(super) use worker_pipes::WorkerPipes;
