//! What one value may ask of the stack, the time and the memory of the process.

use super::error::CodecError;

/// How many values may stand inside each other, options, newtypes and variants counted. Each level
/// takes stack in code that serde derives: in a debug build half a kilobyte for a small enum, five
/// for one with large variants. This many of either fit a thread of 2 MiB; a recursive struct that
/// holds a kilobyte in itself may need 3 MiB in a debug build, and a fifth of that in release.
pub(crate) const MAX_DEPTH: u32 = 256;

/// As how many values inside each other it counts that a handle stands between a value and what is
/// in the memory that it means: to go there takes more stack than another level of a value does.
pub(super) const HANDLE_DEPTH: u32 = 8;

/// How many bytes of memory all elements together may take that themselves take none on the wire.
pub(super) const MAX_FREE: usize = 1 << 22;

/// What is left of the limits. Both count down from a constant, so that for types without
/// recursion the compiler sees that no check can fail.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    depth: u32,
    /// The least that `depth` has been.
    lowest: u32,
    free: usize,
}

impl Limits {
    #[inline]
    pub(super) const fn new() -> Self {
        Self::within(MAX_DEPTH)
    }

    /// For a value that stands inside of others, which have left so much depth to it.
    #[inline]
    pub(super) const fn within(depth: u32) -> Self {
        Self {
            depth,
            lowest: depth,
            free: MAX_FREE,
        }
    }

    /// How many more values may stand inside each other behind a handle that stands here.
    pub(super) fn behind_handle(&self) -> Result<u32, CodecError> {
        self.depth.checked_sub(HANDLE_DEPTH).ok_or_else(too_deep)
    }

    /// Takes account of a handle that stands here, behind which so many values stand inside each other.
    pub(super) fn pass_handle(&mut self, height: u32) -> Result<(), CodecError> {
        let depth = self.behind_handle()?;
        let lowest = depth.checked_sub(height).ok_or_else(too_deep)?;
        self.lowest = self.lowest.min(lowest);
        Ok(())
    }

    /// How many values stand inside each other at most, of those that were gone into.
    pub(super) fn height(&self, depth: u32) -> u32 {
        depth - self.lowest
    }

    /// Goes into a value; to be followed by `leave`, unless the whole attempt fails.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), CodecError> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.depth = depth;
                self.lowest = self.lowest.min(depth);
                Ok(())
            }
            None => Err(too_deep()),
        }
    }

    #[inline]
    pub(super) fn leave(&mut self) {
        self.depth += 1;
    }

    /// Counts an element of `size` bytes of memory and none on the wire, as one byte if it takes
    /// none at all: it still takes time.
    #[inline]
    pub(super) fn charge(&mut self, size: usize) -> Result<(), CodecError> {
        match self.free.checked_sub(size.max(1)) {
            Some(free) => {
                self.free = free;
                Ok(())
            }
            None => Err(too_many()),
        }
    }
}

#[cold]
fn too_deep() -> CodecError {
    CodecError::new(format_args!(
        "more than {MAX_DEPTH} values inside each other (those in broadcasts that have handles in \
         it are among them, and each such handle counts as {HANDLE_DEPTH}); send it in a flatter form"
    ))
}

#[cold]
fn too_many() -> CodecError {
    CodecError::new(format_args!(
        "more than {MAX_FREE} elements, or bytes of memory, in elements that take no bytes when \
         encoded"
    ))
}
