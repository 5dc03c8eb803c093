//! Memory that is counted, and that can be refused, in one thread at a time.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Watched;

#[global_allocator]
static WATCHED: Watched = Watched;

thread_local! {
    // None of them has a destructor or an initializer, so that they can be asked at any time.
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn take(bytes: usize) {
    // What another thread has allocated may be freed in this one, so that it wraps.
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    if held.cast_signed() > PEAK.get().cast_signed() {
        PEAK.set(held);
    }
}

fn give_back(bytes: usize) {
    HELD.set(HELD.get().wrapping_sub(bytes));
}

// SAFETY: all memory is the system's, asked for and given back as here; to answer that there is
// none is always allowed.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's contract is that of the system's allocator.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            take(layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the same.
        unsafe { System.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LARGEST.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the same.
        let moved = unsafe { System.realloc(memory, layout, size) };
        if !moved.is_null() {
            give_back(layout.size());
            take(size);
        }
        moved
    }
}

/// Calls a function, and says how much more memory this thread held at some moment of it than
/// before, in bytes.
pub(crate) fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = f();
    (result, PEAK.get().wrapping_sub(before))
}

/// Calls a function in which this thread gets no memory of more than this many bytes in one piece.
#[cfg(test)]
pub(crate) fn without_more_than<T>(largest: usize, f: impl FnOnce() -> T) -> T {
    struct Unlimited;
    impl Drop for Unlimited {
        fn drop(&mut self) {
            LARGEST.set(usize::MAX);
        }
    }
    let _unlimited = Unlimited;
    LARGEST.set(largest);
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_and_refused() {
        let (kept, bytes) = peak(|| {
            drop(vec![1_u8; 5000]);
            vec![1_u8; 1000]
        });
        assert_eq!((kept.len(), bytes), (1000, 5000));
        let none = |bytes| without_more_than(999, || Vec::<u8>::new().try_reserve_exact(bytes));
        assert!(none(999).is_ok() && none(1000).is_err());
        assert!(Vec::<u8>::new().try_reserve_exact(1000).is_ok());
    }
}
