//! Memory that nobody changes any more.
//!
//! Nothing can be sealed. So a parent writes it, keeps a descriptor by which it can only be read,
//! and passes copies of that to its workers, who trust their parent with this as with all else.
//! What comes from a worker may be written by it at any time, and is copied before anybody reads
//! it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;

use super::memory_file::{memory_files, read_at};
use crate::sys::refused::failed;
use crate::sys::unix::{Mapping, NotSealed, Place, Sealed};

impl Place {
    /// Whether the memory is still there: nobody can look into another process.
    pub(crate) fn has_it(&self) -> bool {
        true
    }
}

impl Sealed {
    /// A copy of these bytes.
    pub(crate) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        Self::filled(bytes.len(), |memory| memory.copy_from_slice(bytes))
    }

    /// This many bytes, all zero, as `fill` changes them where they lie.
    pub(crate) fn filled(bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Self> {
        let (writable, file) = memory_files("procpool-shared", bytes.saturating_add(LENGTH))?;
        let mapping = Mapping::shared(writable.as_fd())?;
        let address = mapping.address().as_ptr();
        // SAFETY: the mapping is so long, writable, zero-filled, and outlives this.
        // Nobody else has the file or its descriptor's number.
        let memory = unsafe { std::slice::from_raw_parts_mut(address, mapping.bytes()) };
        fill(&mut memory[..bytes]);
        let length = memory.last_chunk_mut().expect("there is room for it");
        *length = (bytes as u64).to_ne_bytes();
        drop(mapping);
        let (inode, _) = look_at(&file)?;
        // SAFETY: nobody can write by this descriptor, the other one is closed on return, and its
        // mapping is gone. A worker that is sent the memory cannot write it either, but by the
        // system's own ways into other processes, which are for those whom its parent trusts.
        let sealed = unsafe { Self::of_constant(file, inode, bytes) };
        // Now, where the error has somewhere to go.
        sealed.bytes()?;
        Ok(sealed)
    }

    /// Nobody can open what another process has: it is passed.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn open(_place: Place) -> io::Result<Option<Self>> {
        Err(failed("open")(Errno::NOSYS))
    }

    /// The memory that a descriptor is of which another process has sent: the parent, if it names
    /// it by its inode, or else a worker, of whose memory this is a copy.
    ///
    /// # Errors
    /// With the descriptor when it is of something else, which may take its time to be closed.
    pub(crate) fn received(file: OwnedFd, inode: Option<u64>) -> Result<Self, NotSealed> {
        let stat = fstat(&file).map_err(failed("fstat"))?;
        // Some systems give memory no type.
        let is_memory = matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::Unknown
        );
        let rights = fcntl_getfl(&file).map_err(failed("fcntl(F_GETFL)"))?;
        let is_readable = rights & OFlags::ACCMODE == OFlags::RDONLY;
        let (seen, size) = look_at(&file)?;
        if !is_memory || !is_readable || size < LENGTH {
            return Err(NotSealed::Other(file));
        }
        let mut length = [0; LENGTH];
        read_at(&file, &mut length, size - LENGTH)?;
        let length = u64::from_ne_bytes(length);
        let length = usize::try_from(length)
            .ok()
            .filter(|it| *it <= size - LENGTH);
        let length = length
            .ok_or(io::ErrorKind::InvalidData)
            .map_err(io::Error::from)?;
        match inode {
            // It may be a copy of a worker's, and goes by that one's name.
            // SAFETY: the parent says so, whom a worker trusts.
            Some(inode) => Ok(unsafe { Self::of_constant(file, inode, length) }),
            None => Ok(Self::read(&file, length, seen)?),
        }
    }

    /// A copy of memory that somebody may be writing, or cut short meanwhile.
    fn read(file: &OwnedFd, bytes: usize, inode: u64) -> io::Result<Self> {
        let mut outcome = Ok(());
        let copy = Self::filled(bytes, |memory| outcome = read_at(file, memory, 0))?;
        outcome?;
        // It goes by the name of what it is a copy of.
        Ok(copy.known_by(inode))
    }
}

/// How many bytes say at the end how many there are, for a memory file's size is rounded.
const LENGTH: usize = size_of::<u64>();

/// A file's inode and size.
fn look_at(file: &OwnedFd) -> io::Result<(u64, usize)> {
    let stat = fstat(file).map_err(failed("fstat"))?;
    #[allow(clippy::unnecessary_cast, reason = "not on each system")]
    let (inode, size) = (stat.st_ino as u64, stat.st_size as u64);
    Ok((inode, usize::try_from(size).map_err(io::Error::other)?))
}
