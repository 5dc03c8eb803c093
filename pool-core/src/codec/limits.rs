//! What one value may ask of the stack, the time and the memory of the process.

use super::error::CodecError;

/// How many values may stand inside each other, options, newtypes and variants counted. Each level
/// takes stack in code that serde derives: in a debug build half a kilobyte for a small enum, five
/// for one with large variants. This many of either fit a thread of 2 MiB; a recursive struct that
/// holds a kilobyte in itself may need 3 MiB in a debug build, and a fifth of that in release.
pub(super) const MAX_DEPTH: u32 = 256;

/// How many bytes of memory all elements together may take that themselves take none on the wire.
pub(super) const MAX_FREE: usize = 1 << 22;

/// What is left of the limits. Both count down from a constant, so that for types without
/// recursion the compiler sees that no check can fail.
#[derive(Debug)]
pub(super) struct Limits {
    depth: u32,
    free: usize,
}

impl Limits {
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            depth: MAX_DEPTH,
            free: MAX_FREE,
        }
    }

    /// Goes into a value; to be followed by `leave`, unless the whole attempt fails.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), CodecError> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.depth = depth;
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
        "more than {MAX_DEPTH} values inside each other"
    ))
}

#[cold]
fn too_many() -> CodecError {
    CodecError::new(format_args!(
        "more than {MAX_FREE} elements, or bytes of memory, in elements that take no bytes when \
         encoded"
    ))
}
