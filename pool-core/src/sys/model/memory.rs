//! Memory of a model's regions: both sides are in this process, and share it by a count.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// In front of the memory.
struct Header {
    shares: AtomicUsize,
    drop: unsafe fn(NonNull<u8>),
}

const PAGE: usize = 4096;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(PAGE + bytes, PAGE).expect("a size that memory can have")
}

fn header(address: NonNull<u8>) -> NonNull<Header> {
    // SAFETY: `private_memory` has left a page in front of every address that it gave.
    unsafe { address.sub(PAGE).cast() }
}

/// Zero-filled memory with one share, and `words` at its beginning.
pub(crate) fn private_memory<T>(bytes: usize, words: T) -> NonNull<u8> {
    assert!(size_of::<T>() <= bytes && align_of::<T>() <= PAGE);
    unsafe fn drop_words<T>(address: NonNull<u8>) {
        // SAFETY: they were written there below, and are dropped once.
        unsafe { address.cast::<T>().drop_in_place() };
    }
    // SAFETY: the layout is not of size zero.
    let base = unsafe { alloc_zeroed(layout(bytes)) };
    let Some(base) = NonNull::new(base) else {
        handle_alloc_error(layout(bytes));
    };
    // SAFETY: the block is of a page and `bytes`, and aligned to a page.
    unsafe {
        base.cast().write(Header {
            shares: AtomicUsize::new(1),
            drop: drop_words::<T>,
        });
        let address = base.add(PAGE);
        address.cast().write(words);
        address
    }
}

/// One more will [`unmap`] it.
pub(crate) fn share(address: NonNull<u8>) {
    // SAFETY: the caller has a share, so it is there.
    let header = unsafe { header(address).as_ref() };
    header.shares.fetch_add(1, Ordering::Relaxed);
}

/// Gives a share back.
///
/// # Safety
/// `address..address + bytes` comes from [`private_memory`], and the share is the caller's.
pub(crate) unsafe fn unmap(address: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller has a share, so it is there.
    let header = unsafe { header(address).as_ref() };
    let drop = header.drop;
    if header.shares.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: nobody else has a share; the block was made with this layout.
        unsafe {
            drop(address);
            dealloc(address.sub(PAGE).as_ptr(), layout(bytes));
        }
    }
}
