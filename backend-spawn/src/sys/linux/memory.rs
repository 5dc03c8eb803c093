//! Memory and descriptors, and whether there are some.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::libc;
use rustix::event::{EventfdFlags, eventfd};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Gives the pages of shared memory back to the system. They read as zeros afterwards.
///
/// # Safety
/// `address..address + bytes` is a shared, writable mapping to which there is no Rust reference.
pub(crate) unsafe fn release_pages(address: NonNull<u8>, bytes: usize) -> io::Result<()> {
    // SAFETY: the mapping stays, and nobody believes that its bytes are constant.
    unsafe { madvise(address.as_ptr().cast(), bytes, Advice::LinuxRemove)? };
    Ok(())
}

/// Fails where so much more shared memory cannot be had, for the sake of code that would panic.
pub(crate) fn spare_memory(bytes: usize) -> io::Result<()> {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
    let address = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags)? };
    // SAFETY: it was just made, and nobody knows it.
    unsafe { munmap(address, bytes)? };
    Ok(())
}

/// Fails where so many more descriptors cannot be had, for the sake of code that would panic.
pub(crate) fn spare_descriptors(count: usize) -> io::Result<()> {
    let descriptors: rustix::io::Result<Vec<OwnedFd>> = (0..count)
        .map(|_| eventfd(0, EventfdFlags::CLOEXEC))
        .collect();
    descriptors?;
    Ok(())
}

/// Gives this thread, which must not be the only one, a table of descriptors of its own, in which
/// there is nothing but standard input, output and error. What it opens, nobody else has, and it is
/// closed when the thread ends.
pub(crate) fn own_descriptors() -> io::Result<()> {
    // SAFETY: it closes descriptors in a copy of the table, and leaves the other threads theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
