//! Memory of a model's regions: both sides are in this process, and share it by a count.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

const PAGE: usize = 4096;

/// Memory that is there as long as one of those that share it.
#[derive(Clone)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
    _pages: Arc<Pages>,
}

/// The memory, and what drops the words at its beginning, in this order.
struct Pages {
    _words: Box<dyn Send + Sync>,
    _all: Vec<u8>,
}

// SAFETY: it is owned memory, and this itself neither reads nor writes it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zero-filled memory with `words` at its beginning.
    pub(crate) fn of_words<T: Send + 'static>(bytes: usize, words: T) -> Self {
        struct Words<T>(NonNull<T>);
        // SAFETY: it does nothing but to drop a `T`, which any thread may.
        unsafe impl<T: Send> Send for Words<T> {}
        // SAFETY: nobody does anything with a reference to it.
        unsafe impl<T> Sync for Words<T> {}
        impl<T> Drop for Words<T> {
            fn drop(&mut self) {
                // SAFETY: they were written below, and are dropped once, before the memory.
                unsafe { self.0.drop_in_place() };
            }
        }

        assert!(size_of::<T>() <= bytes && align_of::<T>() <= PAGE);
        // Not a vector of pages: a page that is made on the stack is more than a model's thread
        // has.
        let mut memory = vec![0_u8; bytes + PAGE];
        let start = memory.as_mut_ptr();
        let address = NonNull::new(start.wrapping_add(start.align_offset(PAGE)));
        let address = address.expect("no vector is at address zero");
        let place = address.cast::<T>();
        // SAFETY: the memory is large enough, aligned to a page, and nobody else has it.
        unsafe { place.write(words) };
        Self {
            address,
            bytes,
            _pages: Arc::new(Pages {
                _words: Box::new(Words(place)),
                _all: memory,
            }),
        }
    }

    /// A model's regions are not mapped.
    pub(crate) fn shared(_file: BorrowedFd<'_>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where it begins: at a page.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}
