//! What workers print, read by a thread of its own and told by another.
//!
//! The [`reader`] sleeps on the workers' pipes and empties them; it waits for nobody, so that no
//! task waits for it. The [`teller`] gives what was read to the user's handlers, which may take as long as they like; between
//! the two is a queue with a limit. There are such threads only in pools that capture something. When a worker has
//! died, the supervisor empties its pipes itself, before it tells of the lost task.

mod intake;
mod lines;
#[cfg(feature = "tracing")]
mod origins;
mod reader;
mod tail;
mod teller;

pub(super) use intake::Intake;
pub(super) use reader::Capture;
