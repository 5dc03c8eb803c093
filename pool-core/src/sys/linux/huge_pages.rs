//! Memory in huge pages.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};

/// From this many bytes on, memory that is going to be filled is asked for in huge pages.
const HUGE: usize = 2 << 20;

/// Says that this memory is going to be filled: the kernel may take it from huge pages, as far as
/// it holds whole ones, instead of finding and clearing each page of four kilobytes when it is
/// first touched.
pub(crate) fn expect_use<T>(room: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(room);
    if bytes < HUGE {
        return;
    }
    let page = rustix::param::page_size();
    let start = room.as_mut_ptr().cast::<u8>();
    let skip = start.align_offset(page);
    let whole = bytes.saturating_sub(skip) / page * page;
    // SAFETY: whole pages inside of memory that the caller has for itself; their content stays
    // what it is. (A kernel without huge pages refuses, and that is all the same.)
    let _ = unsafe {
        let start = start.add(skip.min(bytes));
        madvise(start.cast(), whole, Advice::LinuxHugepage)
    };
}
