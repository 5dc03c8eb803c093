//! Memory that nobody changes any more.
//!
//! Nothing can be sealed. So a parent writes it, keeps a descriptor by which it can only be read,
//! and passes copies of that to its workers, who trust their parent with this as with all else.
//! What comes from a worker may be written by it at any time, and is copied before anybody reads
//! it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;

use super::memory_file::{memory_files, read_exactly};
use crate::sys::place::{NotSealed, Place};
use crate::sys::refused::failed;
use crate::sys::unix::{Mapping, own_pid};

/// A memory file that can only be read, mapped when its bytes are first asked for. Its descriptor
/// stays open, for it is passed to others.
pub(crate) struct Sealed {
    file: Arc<OwnedFd>,
    inode: u64,
    len: usize,
    mapping: OnceLock<Mapping>,
}

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
        let (file, readable) = memory_files(bytes)?;
        if bytes == 0 {
            fill(&mut []);
        } else {
            let mapping = Mapping::shared(file.as_fd())?;
            let address = mapping.address().as_ptr();
            // SAFETY: the mapping is so long at least, writable, zero-filled, and outlives the
            // call. Nobody else has the file or its descriptor's number.
            fill(unsafe { std::slice::from_raw_parts_mut(address, bytes) });
        }
        let sealed = Self::of(readable, bytes)?;
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
        #[allow(clippy::unnecessary_cast, reason = "not on each system")]
        let (seen, size) = (stat.st_ino as u64, stat.st_size as u64);
        // Some systems give memory no type.
        let is_memory = matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::Unknown
        );
        let rights = fcntl_getfl(&file).map_err(failed("fcntl(F_GETFL)"))?;
        let is_readable = rights & OFlags::ACCMODE == OFlags::RDONLY;
        if !is_memory || !is_readable {
            return Err(NotSealed::Other(file));
        }
        let bytes = usize::try_from(size).map_err(io::Error::other)?;
        match inode {
            // It may be a copy of a worker's, and goes by that one's name.
            Some(inode) => Ok(Self {
                inode,
                ..Self::of(file, bytes)?
            }),
            None => Ok(Self::read(&file, bytes, seen)?),
        }
    }

    /// A copy of memory that somebody may be writing, or cut short meanwhile.
    fn read(file: &OwnedFd, bytes: usize, inode: u64) -> io::Result<Self> {
        let mut failure = None;
        let copy = Self::filled(bytes, |memory| {
            let read = read_exactly(file, memory);
            failure = read.err();
        })?;
        match failure {
            Some(error) => Err(error),
            // It goes by the name of what it is a copy of.
            None => Ok(Self { inode, ..copy }),
        }
    }

    /// Its descriptor, for another process.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    fn of(file: OwnedFd, len: usize) -> io::Result<Self> {
        let stat = fstat(&file).map_err(failed("fstat"))?;
        #[allow(clippy::unnecessary_cast, reason = "not on each system")]
        let inode = stat.st_ino as u64;
        Ok(Self {
            file: Arc::new(file),
            inode,
            len,
            mapping: OnceLock::new(),
        })
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, aligned for every kind of number.
    ///
    /// # Errors
    /// The first time, when there is no room for them among the addresses.
    pub(crate) fn bytes(&self) -> io::Result<&[u8]> {
        const NONE: &[u128] = &[];
        if self.len == 0 {
            return Ok(bytemuck::cast_slice(NONE));
        }
        let mapping = match self.mapping.get() {
            Some(mapping) => mapping,
            None => {
                let mapped = Mapping::private(self.file.as_fd(), self.len)?;
                self.mapping.get_or_init(|| mapped)
            }
        };
        // SAFETY: the mapping is so long, readable, and lives as long as `self`. Whoever has
        // written the memory has no mapping of it any more by which it could: it is this process,
        // or its parent, whom a worker trusts.
        Ok(unsafe { std::slice::from_raw_parts(mapping.address().as_ptr(), self.len) })
    }

    /// Where other processes would find it: in this one.
    pub(crate) fn place(&self) -> Place {
        Place {
            pid: own_pid(),
            descriptor: self.file.as_fd().as_raw_fd(),
            inode: self.inode,
        }
    }
}
