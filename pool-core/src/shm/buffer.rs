//! Buffers for what travels in chunks, used again by the thread that has dropped them.
//!
//! A call of many items fills and drops buffers all the time, of its chunks' arguments and of their
//! results. An allocator gives such memory back to the system again and again, and each page that
//! is got anew costs more than to copy what it is to hold.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// How many a thread keeps, at most.
const KEEP: usize = 16;
/// Smaller ones are left to the allocator, larger ones are given back: a thread should not stay
/// large.
const WORTH: std::ops::RangeInclusive<usize> = 4 * 1024..=128 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A vector of bytes whose memory is used again.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// Sees to it that there is room for this many bytes more, if need be in memory that is spare.
    #[inline]
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if self.0.capacity() < *WORTH.start()
            && bytes >= *WORTH.start()
            && let Some(mut memory) = spare()
        {
            memory.extend_from_slice(&self.0);
            self.0 = memory;
        }
        self.0.reserve(bytes);
    }
}

#[cold]
fn spare() -> Option<Vec<u8>> {
    SPARE.try_with(|spare| spare.borrow_mut().pop()).ok()?
}

#[cold]
fn keep(mut memory: Vec<u8>) {
    memory.clear();
    // A thread that ends keeps nothing.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < KEEP {
            spare.push(memory);
        }
    });
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if WORTH.contains(&self.0.capacity()) {
            keep(std::mem::take(&mut self.0));
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let mut first = Buffer::default();
        first.make_room(10_000);
        first.extend([7; 10_000]);
        let place = first.as_ptr();
        drop(first);
        let mut second = Buffer::default();
        second.push(3);
        second.make_room(8_000);
        assert_eq!((second.as_ptr(), &second[..]), (place, &[3][..]));
    }

    #[test]
    fn a_thread_keeps_little() {
        drop(Buffer::from(Vec::with_capacity(1 << 20)));
        drop(Buffer::from(Vec::with_capacity(100)));
        assert!(spare().is_none());
        let many = Vec::from_iter((0..100).map(|_| Buffer::from(Vec::with_capacity(5_000))));
        drop(many);
        assert_eq!(SPARE.with(|spare| spare.borrow().len()), KEEP);
    }
}
