//! What goes on in this thread: whether a handle that is being serialised goes to another process
//! of this pool, and not into a file.

use std::cell::Cell;
use std::sync::Arc;

use super::memory::SharedMemory;

/// The name of the newtype by which a handle gives itself away to the codec.
pub(crate) const TICKET: &str = "procpool::Broadcast";

enum Passage {
    /// No codec of ours is at work.
    Closed,
    /// A handle is being encoded; which one, once that is known.
    Leaving(Option<Arc<SharedMemory>>),
    /// A handle is being decoded.
    Arriving { from_parent: bool },
}

thread_local! {
    static PASSAGE: Cell<Passage> = const { Cell::new(Passage::Closed) };
}

/// Puts back what was before, also when serde's or the user's code panics.
struct Restore(Option<Passage>);

impl Restore {
    fn after(passage: Passage) -> Self {
        Self(Some(PASSAGE.replace(passage)))
    }

    /// Puts it back now, and gives what it is now.
    fn now(mut self) -> Passage {
        let before = self.0.take().unwrap_or(Passage::Closed);
        PASSAGE.replace(before)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            PASSAGE.set(before);
        }
    }
}

/// The codec encodes a handle; which is what comes back with it.
pub(crate) fn leaving<R>(encode: impl FnOnce() -> R) -> (R, Option<Arc<SharedMemory>>) {
    let restore = Restore::after(Passage::Leaving(None));
    let encoded = encode();
    match restore.now() {
        Passage::Leaving(memory) => (encoded, memory),
        Passage::Closed | Passage::Arriving { .. } => (encoded, None),
    }
}

/// The codec decodes a handle, which came from the parent or from a worker.
pub(crate) fn arriving<R>(from_parent: bool, decode: impl FnOnce() -> R) -> R {
    let _restore = Restore::after(Passage::Arriving { from_parent });
    decode()
}

/// The handle that is being encoded is one of this memory. `false`: not by our codec.
pub(super) fn leave(memory: &Arc<SharedMemory>) -> bool {
    match PASSAGE.replace(Passage::Closed) {
        Passage::Leaving(_) => {
            PASSAGE.set(Passage::Leaving(Some(memory.clone())));
            true
        }
        other => {
            PASSAGE.set(other);
            false
        }
    }
}

/// Whether the handle that is being decoded came from the parent; to be asked once. `None`: it is
/// not our codec that decodes it.
pub(super) fn arrives_from_parent() -> Option<bool> {
    match PASSAGE.replace(Passage::Closed) {
        Passage::Arriving { from_parent } => Some(from_parent),
        other => {
            PASSAGE.set(other);
            None
        }
    }
}
