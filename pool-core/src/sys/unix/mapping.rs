//! How memory is mapped.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::sys::refused::failed;

/// Memory that is mapped as long as this is there. Whoever reads or writes in it vouches for what
/// other mappings of the same memory do.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is owned memory, and this itself neither reads nor writes it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// A whole memory file, shared and writable.
    pub(crate) fn shared(file: BorrowedFd<'_>) -> io::Result<Self> {
        let bytes = fstat(file).map_err(failed("fstat"))?.st_size as usize;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        Self::new(Some(file), bytes, rights, MapFlags::SHARED).map_err(failed("mmap"))
    }

    /// This many bytes of a file, to be read. What is written to the file may or may not be seen.
    pub(in crate::sys) fn private(file: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let kind = MapFlags::PRIVATE;
        Self::new(Some(file), bytes, ProtFlags::READ, kind).map_err(failed("mmap"))
    }

    /// This many bytes of zeros, of this process's own. A signal handler may ask for them.
    pub(in crate::sys) fn anonymous(bytes: usize) -> Result<Self, Errno> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        Self::new(None, bytes, rights, MapFlags::PRIVATE)
    }

    fn new(
        file: Option<BorrowedFd<'_>>,
        bytes: usize,
        rights: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let anywhere = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            match file {
                Some(file) => mmap(anywhere, bytes, rights, flags, file, 0),
                None => mmap_anonymous(anywhere, bytes, rights, flags),
            }
        };
        let address =
            NonNull::new(address?.cast()).expect("the kernel maps nothing at address zero");
        Ok(Self { address, bytes })
    }

    /// Where it begins: at a page.
    #[inline]
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// How many bytes there are.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped above, and whoever uses it borrows this. An error would mean that
        // there was no such mapping.
        let unmapped = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

/// Whether this process can have so many bytes more. A signal handler may ask.
pub(crate) fn has_room_for(bytes: usize) -> bool {
    Mapping::anonymous(bytes).is_ok()
}
