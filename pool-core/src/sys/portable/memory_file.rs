//! Shared memory: a POSIX shared memory object, whose name is taken away at once.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, ftruncate};
use rustix::io::{Errno, retry_on_intr};
use rustix::shm::{self, OFlags};

use super::random::random_id;
use crate::sys::refused::failed;
use crate::sys::unix::{off_standard, without_size_signal};

/// A memory file's size is a multiple of this, wherever it is made. Some systems round it to their
/// pages by themselves, and these are the largest such pages.
const GRAIN: usize = 16 << 10;

/// How large a memory file is that was asked for with this size.
pub(crate) fn memory_size(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(GRAIN).unwrap_or(usize::MAX)
}

/// Creates a zero-filled memory file of this size at least. (Not everywhere is it for good: another
/// process that has the descriptor may cut the memory short, and whoever uses that dies of SIGBUS.)
pub(crate) fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    Ok(memory_files("procpool", bytes)?.0)
}

/// The same, and a second descriptor by which it can be read only.
pub(super) fn memory_files(kind: &str, bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let owner = Mode::RUSR | Mode::WUSR;
    let size = memory_size(bytes) as u64;
    loop {
        // No longer than 30 bytes, which is the most on some systems.
        let name = format!("/{kind}-{:012x}", random_id()? as u64 & 0xffff_ffff_ffff);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = match shm::open(&*name, flags, owner) {
            // Somebody else's.
            Err(Errno::EXIST) => continue,
            opened => opened.map_err(failed("shm_open"))?,
        };
        let readable = shm::open(&*name, OFlags::RDONLY, Mode::empty());
        // Even if the second one failed.
        shm::unlink(&*name).map_err(failed("shm_unlink"))?;
        let files = (
            off_standard(file)?,
            off_standard(readable.map_err(failed("shm_open"))?)?,
        );
        let resize = || retry_on_intr(|| ftruncate(&files.0, size));
        without_size_signal(|| resize().map_err(failed("ftruncate")))?;
        return Ok(files);
    }
}

/// Reads what a memory file has from there. One that is cut short meanwhile ends it with an error.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn read_at(file: &OwnedFd, into: &mut [u8], at: usize) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    std::fs::File::from(file.try_clone()?).read_exact_at(into, at as u64)
}

/// The same where shared memory can only be mapped, and nobody can cut it short.
#[cfg(target_vendor = "apple")]
#[allow(unsafe_code)]
pub(super) fn read_at(file: &OwnedFd, into: &mut [u8], at: usize) -> io::Result<()> {
    use std::os::fd::AsFd;

    use crate::sys::unix::Mapping;

    if into.is_empty() {
        return Ok(());
    }
    let mapping = Mapping::private(file.as_fd(), at + into.len())?;
    for (place, byte) in into.iter_mut().enumerate() {
        // SAFETY: the mapping is so long. Another process may write there, so each byte is read
        // once, as it is then.
        *byte = unsafe { mapping.address().add(at + place).read_volatile() };
    }
    Ok(())
}
