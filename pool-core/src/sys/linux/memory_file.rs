//! Memory files whose size, or content, nobody can change any more.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::io::retry_on_intr;

use crate::sys::refused::failed;
use crate::sys::unix::{off_standard, without_size_signal};

/// Creates a zero-filled memory file whose size nobody can change any more: a process that
/// shrank it would make every other one that maps it die of SIGBUS.
pub(crate) fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    let file = memory_file_to_size("procpool")?;
    give_size(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SEAL).map_err(failed("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// How large such a file is that was asked for with this size.
pub(crate) fn memory_size(bytes: usize) -> usize {
    bytes
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
