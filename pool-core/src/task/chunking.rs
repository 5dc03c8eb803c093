//! How large an executor wants chunks to be.

use std::time::Duration;

/// How large the chunks of lazy maps should be, unless the call says it. What an
/// [`Executor`](crate::Executor) answers when it is asked for its
/// [`chunking`](crate::Executor::chunking).
///
/// The larger, the less a chunk costs beside its items; and the longer others may have nothing to
/// do in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunking {
    /// How long a chunk should keep its worker: so long that handing it over costs little beside
    /// it. Over shared memory a millisecond does; over a network it takes some tens of them.
    pub target: Duration,
    /// The most bytes that a chunk of several items should have.
    pub max_bytes: usize,
    /// How many chunks should be under way for each worker, so that it has its next one while it
    /// is at one.
    pub ahead: usize,
}

impl Default for Chunking {
    /// What is right for workers that share memory with this process.
    fn default() -> Self {
        Self {
            target: Duration::from_millis(1),
            max_bytes: 32 * 1024,
            ahead: 3,
        }
    }
}
