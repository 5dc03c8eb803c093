//! What goes on in this thread: whether a handle that is being serialised goes to another process
//! of this pool, and not into a file.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use super::error::CodecError;

/// What a handle means, as far as the codec knows: something that must live until the handle has
/// arrived.
pub(crate) trait Attachment: Any + Send + Sync {
    /// How many values stand inside each other behind the handle.
    fn height(&self) -> u32;
}

/// Where the codec puts what must live as long as what it has encoded.
pub(crate) trait Attach {
    /// Keeps it, if it is not kept already.
    ///
    /// # Errors
    /// When there are too many of its kind in one value.
    fn attach(&mut self, attachment: Arc<dyn Attachment>) -> Result<(), CodecError>;
}

pub(crate) type Attachments = dyn Attach + 'static;

/// The name of the newtype by which a handle gives itself away to the codec.
pub(crate) const HANDLE_TYPE_NAME: &str = "procpool::Broadcast";

enum Passage {
    /// No codec of ours is at work.
    Closed,
    /// A handle is being encoded; which one, once that is known.
    Leaving(Option<Arc<dyn Attachment>>),
    /// A handle is being decoded.
    Arriving(Arrival),
    /// A handle was decoded, behind which this many values stand inside each other.
    Arrived { height: u32, excess: usize },
}

/// How a handle comes to be decoded.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Whether it came from the parent; otherwise, from a worker.
    pub(crate) from_parent: bool,
    /// How many values may stand inside each other behind it.
    pub(crate) depth: u32,
    /// How much memory they may take beyond what their bytes allow.
    pub(crate) excess: usize,
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
pub(crate) fn encoding_handle<R>(encode: impl FnOnce() -> R) -> (R, Option<Arc<dyn Attachment>>) {
    let restore = Restore::after(Passage::Leaving(None));
    let encoded = encode();
    match restore.now() {
        Passage::Leaving(memory) => (encoded, memory),
        _ => (encoded, None),
    }
}

/// The codec decodes a handle. With it comes back how many values stand inside each other behind
/// that, and how much excess is left.
pub(crate) fn decoding_handle<R>(arrival: Arrival, decode: impl FnOnce() -> R) -> (R, u32, usize) {
    let restore = Restore::after(Passage::Arriving(arrival));
    let decoded = decode();
    match restore.now() {
        Passage::Arrived { height, excess } => (decoded, height, excess),
        _ => (decoded, 0, arrival.excess),
    }
}

/// The handle that is being encoded is one of this memory. `false`: not by our codec.
pub(crate) fn leave(memory: Arc<dyn Attachment>) -> bool {
    match PASSAGE.replace(Passage::Closed) {
        Passage::Leaving(_) => {
            PASSAGE.set(Passage::Leaving(Some(memory)));
            true
        }
        other => {
            PASSAGE.set(other);
            false
        }
    }
}

/// This many values stand inside each other behind the handle that was decoded, and so much excess
/// is left.
pub(crate) fn arrived(height: u32, excess: usize) {
    PASSAGE.set(Passage::Arrived { height, excess });
}

/// How the handle that is being decoded arrives; to be asked once. `None`: it is not our codec that
/// decodes it.
pub(crate) fn arrival() -> Option<Arrival> {
    match PASSAGE.replace(Passage::Closed) {
        Passage::Arriving(arrival) => Some(arrival),
        other => {
            PASSAGE.set(other);
            None
        }
    }
}
