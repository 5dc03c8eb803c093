//! Memory that nobody changes any more. How it comes to that is each system's own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::ids::own_pid;
use super::mapping::Mapping;

/// A memory file whose bytes stay as they are, mapped when they are first asked for. Its descriptor
/// stays open, for others find the memory by it.
pub(crate) struct Sealed {
    file: Arc<OwnedFd>,
    inode: u64,
    len: usize,
    mapping: OnceLock<Mapping>,
}

/// Why a descriptor is not taken for sealed memory.
#[derive(Debug)]
pub(crate) enum NotSealed {
    /// It is of something else.
    Other(OwnedFd),
    /// The system does not say.
    Refused(io::Error),
}

impl From<io::Error> for NotSealed {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// Where a process has a sealed memory file, and which one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) descriptor: i32,
    pub(crate) inode: u64,
}

impl Sealed {
    /// The first `len` bytes of a file with this inode.
    ///
    /// # Safety
    /// From now on, nobody changes these bytes, or cuts the file so short that they are not all
    /// there.
    pub(in crate::sys) unsafe fn of_constant(file: OwnedFd, inode: u64, len: usize) -> Self {
        Self {
            file: Arc::new(file),
            inode,
            len,
            mapping: OnceLock::new(),
        }
    }

    /// The same, which goes by another inode: that of what it is a copy of.
    #[cfg(any(procpool_portable, not(target_os = "linux")))]
    pub(in crate::sys) fn known_by(self, inode: u64) -> Self {
        Self { inode, ..self }
    }

    /// Its descriptor, for another process.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        &self.file
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
                // Private, since older kernels map nothing shared by a descriptor that could have
                // written before the seal. A process that only reads a private mapping sees the
                // file's own pages.
                let mapped = Mapping::private(self.file.as_fd(), self.len)?;
                self.mapping.get_or_init(|| mapped)
            }
        };
        // SAFETY: the mapping is so long, readable, and lives as long as `self`. Nobody changes
        // these bytes or takes them away, says who made this (`of_constant`).
        Ok(unsafe { std::slice::from_raw_parts(mapping.address().as_ptr(), self.len) })
    }

    /// Where other processes find it: in this one.
    pub(crate) fn place(&self) -> Place {
        Place {
            pid: own_pid(),
            descriptor: self.file.as_fd().as_raw_fd(),
            inode: self.inode,
        }
    }
}
