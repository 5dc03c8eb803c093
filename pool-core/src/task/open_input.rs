//! The seam between an input that is being read and the executor of its call.

use super::chunk::Chunk;

/// Items that a thread collects while it reads an input, and that an executor may ask for.
pub trait OpenInput: Send + Sync {
    /// A worker has nothing to do: takes what is there, if anything, and has whatever comes after
    /// that submitted at once.
    fn ask(&self) -> Option<Chunk>;

    /// Has the thread that reads look at whatever has changed, before it reads on.
    fn interrupt(&self);
}
