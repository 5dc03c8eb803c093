//! Memory of this process alone.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fd::{BorrowedFd, OwnedFd};
use super::missing::missing;

/// Shared memory, of which there is none.
#[derive(Debug)]
pub(crate) struct Mapping(std::convert::Infallible);

impl Mapping {
    pub(crate) fn shared(file: BorrowedFd<'_>) -> io::Result<Self> {
        file.never()
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        match self.0 {}
    }

    pub(crate) fn bytes(&self) -> usize {
        match self.0 {}
    }
}

pub(crate) fn memory_file(_bytes: usize) -> io::Result<OwnedFd> {
    Err(missing("shared memory"))
}

pub(crate) fn memory_size(bytes: usize) -> usize {
    bytes
}

/// Bytes that nobody changes any more, of this process.
pub(crate) struct Sealed {
    /// Aligned for every kind of number.
    words: Vec<u128>,
    len: usize,
    number: u64,
}

/// Why a descriptor is not taken for sealed memory.
#[derive(Debug)]
pub(crate) enum NotSealed {
    /// It is of something else.
    Other(OwnedFd),
    /// The system does not say.
    #[allow(dead_code, reason = "there is no system that could say it")]
    Refused(io::Error),
}

/// Where a process has sealed memory, and which one that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) pid: u32,
    pub(crate) descriptor: i32,
    pub(crate) inode: u64,
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
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let count = bytes.div_ceil(size_of::<u128>());
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        words.resize(count, 0_u128);
        fill(&mut bytemuck::cast_slice_mut(&mut words)[..bytes]);
        Ok(Self {
            words,
            len: bytes,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Nobody can open what another process has.
    pub(crate) fn open(_place: Place) -> io::Result<Option<Self>> {
        Err(missing("memory of another process"))
    }

    pub(crate) fn received(file: OwnedFd, _inode: Option<u64>) -> Result<Self, NotSealed> {
        Err(NotSealed::Other(file))
    }

    /// Its descriptor, for another process: there is none, and nobody has one.
    pub(crate) fn file(&self) -> &Arc<OwnedFd> {
        unreachable!("there is no other process that it could go to")
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The bytes, aligned for every kind of number.
    pub(crate) fn bytes(&self) -> io::Result<&[u8]> {
        Ok(&bytemuck::cast_slice(&self.words)[..self.len])
    }

    /// Where it is: in this process.
    pub(crate) fn place(&self) -> Place {
        Place {
            pid: std::process::id(),
            descriptor: -1,
            inode: self.number,
        }
    }
}
