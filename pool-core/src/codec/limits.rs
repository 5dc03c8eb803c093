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

/// A value may take this many bytes of memory for each of its bytes, ..
pub(super) const FACTOR: usize = 8;

/// .. and those that take more may take this many bytes more than that, all together. An option of
/// something large takes one byte when there is nothing in it, and all of its memory.
pub(crate) const MAX_EXCESS: usize = if cfg!(fuzzing) { 1 << 16 } else { 64 << 20 };

/// What is left of the limits. All count down from a constant, so that for types without
/// recursion the compiler sees that no check can fail.
///
/// How many values stand inside each other is known at the end if it `MEASURES` that. Only shared
/// memory needs it: the compiler no longer sees that going in and out changes nothing then, which
/// costs half a nanosecond for each tuple.
#[derive(Debug, Clone)]
pub(super) struct Limits<const MEASURES: bool> {
    depth: u32,
    /// The least that `depth` has been, if it is measured.
    lowest: u32,
    free: usize,
    excess: usize,
}

impl<const MEASURES: bool> Limits<MEASURES> {
    #[inline]
    pub(super) const fn new() -> Self {
        Self::within(MAX_DEPTH, MAX_EXCESS)
    }

    /// For a value that stands inside of others, which have left so much to it.
    #[inline]
    pub(super) const fn within(depth: u32, excess: usize) -> Self {
        Self {
            depth,
            lowest: depth,
            free: MAX_FREE,
            excess,
        }
    }

    /// How much memory values may still take beyond what their bytes allow.
    #[inline]
    pub(super) fn excess(&self) -> usize {
        self.excess
    }

    /// How many more values may stand inside each other behind a handle that stands here.
    pub(super) fn behind_handle(&self) -> Result<u32, CodecError> {
        self.depth.checked_sub(HANDLE_DEPTH).ok_or_else(too_deep)
    }

    /// Takes account of a handle that stands here, behind which this many values stand inside each
    /// other, and which has left so much excess.
    pub(super) fn pass_handle(&mut self, height: u32, excess: usize) -> Result<(), CodecError> {
        self.excess = self.excess.min(excess);
        let depth = self.behind_handle()?;
        let lowest = depth.checked_sub(height).ok_or_else(too_deep)?;
        self.reach(lowest);
        Ok(())
    }

    #[inline]
    fn reach(&mut self, depth: u32) {
        if MEASURES {
            self.lowest = self.lowest.min(depth);
        }
    }

    /// How many values stand inside each other at most, of those that were gone into; 0 if that is
    /// not measured.
    pub(super) fn height(&self, depth: u32) -> u32 {
        depth - self.lowest
    }

    /// Goes into a value; to be followed by `leave`, unless the whole attempt fails.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), CodecError> {
        match self.depth.checked_sub(1) {
            Some(depth) => {
                self.depth = depth;
                self.reach(depth);
                Ok(())
            }
            None => Err(too_deep()),
        }
    }

    #[inline]
    pub(super) fn leave(&mut self) {
        self.depth += 1;
    }

    /// Counts a value of `size` bytes of memory and `used` on the wire; `before` is how much excess
    /// was left before it, so that what stands inside of it is not counted twice.
    #[inline]
    pub(super) fn weigh(
        &mut self,
        size: usize,
        used: usize,
        before: usize,
    ) -> Result<(), CodecError> {
        if size > used.saturating_mul(FACTOR) {
            self.weigh_excess(size, used, before)
        } else {
            Ok(())
        }
    }

    /// The same of an element or an entry. If it has no bytes at all, there may be any number of
    /// it, and it is counted as one byte at least: it still takes time.
    #[inline]
    pub(super) fn weigh_element(
        &mut self,
        size: usize,
        used: usize,
        before: usize,
    ) -> Result<(), CodecError> {
        if size.max(1) <= used.saturating_mul(FACTOR) {
            Ok(())
        } else if used == 0 {
            self.charge(size.max(1))
        } else {
            self.weigh_excess(size, used, before)
        }
    }

    #[cold]
    fn weigh_excess(&mut self, size: usize, used: usize, before: usize) -> Result<(), CodecError> {
        let counted = before.saturating_sub(self.excess);
        let more = (size - used * FACTOR).saturating_sub(counted);
        match self.excess.checked_sub(more) {
            Some(excess) => {
                self.excess = excess;
                Ok(())
            }
            None => Err(too_heavy()),
        }
    }

    /// Counts this many bytes of elements without any.
    #[cold]
    pub(super) fn charge(&mut self, size: usize) -> Result<(), CodecError> {
        match self.free.checked_sub(size) {
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
fn too_heavy() -> CodecError {
    CodecError::new(format_args!(
        "the value takes far more memory than bytes: values that take more than {FACTOR} times their \
         bytes may take {} MiB more than that; box what is large and mostly not there \
         (`Option<Box<T>>`), or send what is there with its index",
        MAX_EXCESS >> 20
    ))
}

#[cold]
fn too_many() -> CodecError {
    CodecError::new(format_args!(
        "more than {MAX_FREE} elements, or bytes of memory, in elements that take no bytes when \
         encoded"
    ))
}
