//! Memory files, and how they are mapped.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::descriptor::off_standard;
use crate::sys::file_size::without_size_signal;
use crate::sys::refused::failed;

/// Creates a zero-filled memory file whose size nobody can change any more: a process that
/// shrank it would make every other one that maps it die of SIGBUS.
pub(crate) fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    let file = memory_file_to_size("procpool")?;
    give_size(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SEAL).map_err(failed("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// Creates an empty memory file that can be sealed.
pub(in crate::sys) fn memory_file_to_size(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    off_standard(memfd_create(name, flags).map_err(failed("memfd_create"))?)
}

/// Makes a memory file so large, for good. It must not be mapped before: a process of the same user
/// may have opened it by `/proc` already, and could cut it short.
///
/// # Errors
/// When the system refuses it, or another process has changed the size meanwhile.
pub(in crate::sys) fn give_size(file: &OwnedFd, bytes: usize) -> io::Result<()> {
    let resize = || retry_on_intr(|| ftruncate(file, bytes as u64));
    without_size_signal(|| resize().map_err(failed("ftruncate")))?;
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW)
        .map_err(failed("fcntl(F_ADD_SEALS)"))?;
    has_size(file, bytes)
}

/// Checks the size of a memory file that nobody can change any more.
///
/// # Errors
/// When it is another one.
pub(in crate::sys) fn has_size(file: &OwnedFd, bytes: usize) -> io::Result<()> {
    let stat = fstat(file).map_err(failed("fstat"))?;
    if stat.st_size.cast_unsigned() == bytes as u64 {
        Ok(())
    } else {
        Err(io::Error::other(
            "another process of this user has changed the size of shared memory while it was made",
        ))
    }
}

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
