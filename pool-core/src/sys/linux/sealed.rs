//! Memory that nobody can change any more, in whatever process it is mapped: the kernel seals it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SealFlags, StatxFlags, fcntl_add_seals, fcntl_get_seals,
    fstat, open, readlink, stat, statx,
};
use rustix::io::Errno;

use super::memory_file::{give_size, has_size, memory_file_to_size};
use crate::sys::refused::{failed, failed_in, is_refusal};
use crate::sys::unix::{Mapping, NotSealed, Place, Sealed, off_standard, without_size_signal};

/// What makes a memory file's bytes the same forever.
const FROZEN: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

impl Place {
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", self.pid, self.descriptor)
    }

    /// Whether the memory is still there, as far as this process may know.
    pub(crate) fn has_it(&self) -> bool {
        stat(self.path()).is_ok_and(|stat| stat.st_ino == self.inode)
    }
}

/// The device that memory files are on, and no other file.
fn memory_device() -> io::Result<Device> {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(*device);
    }
    let (device, _) = look_at(memory_file_to_size("procpool")?)?;
    Ok(*DEVICE.get_or_init(|| device))
}

/// Its major and minor number.
type Device = (u32, u32);

/// Where a file is: its device and its inode. Nothing is asked that may take its time, such as a
/// file system's server.
fn look_at(file: impl AsFd) -> io::Result<(Device, u64)> {
    let file = file.as_fd();
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match statx(file, "", flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)),
        Err(errno) if is_refusal(errno) => look_by_name(file),
        Err(errno) => Err(failed("statx")(errno)),
    }
}

/// The same where a sandbox refuses `statx`. The name says first whether it is memory, of which
/// the kernel itself is asked.
fn look_by_name(file: BorrowedFd<'_>) -> io::Result<(Device, u64)> {
    let name = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    if !name.as_bytes().starts_with(b"/memfd:") {
        return Ok(((0, 0), 0));
    }
    let stat = fstat(file).map_err(failed("fstat"))?;
    let device = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    Ok((device, stat.st_ino))
}

/// Whether this is memory that nobody can change. Files that are no memory have no seals, and an
/// error here.
fn has_frozen_seals(file: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(FROZEN))
}

impl Sealed {
    /// A copy of these bytes.
    pub(crate) fn copy_of(bytes: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memory_file_to_size("procpool-shared")?);
        // To write is to copy once; a mapping would take a page fault for each page besides.
        without_size_signal(|| file.write_all(bytes)).map_err(failed_in("write"))?;
        Self::freeze(file.into(), bytes.len())
    }

    /// This many bytes, all zero, as `fill` changes them where they lie.
    pub(crate) fn filled(bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Self> {
        let file = memory_file_to_size("procpool-shared")?;
        give_size(&file, bytes)?;
        if bytes == 0 {
            fill(&mut []);
        } else {
            let mapping = Mapping::shared(file.as_fd())?;
            let address = mapping.address().as_ptr();
            // SAFETY: the mapping is so long, writable, zero-filled, and outlives the call. Nobody
            // else has the file or its descriptor's number.
            fill(unsafe { std::slice::from_raw_parts_mut(address, mapping.bytes()) });
        }
        // The mapping is gone, also from what `fill` may have started, or this is refused.
        Self::freeze(file, bytes)
    }

    fn freeze(file: OwnedFd, bytes: usize) -> io::Result<Self> {
        fcntl_add_seals(&file, FROZEN).map_err(failed("fcntl(F_ADD_SEALS)"))?;
        has_size(&file, bytes)?;
        let sealed = Self::of(file)?;
        let sealed = sealed.ok_or_else(|| io::Error::other("the memory cannot be sealed"))?;
        // Now, where the error has somewhere to go.
        sealed.bytes()?;
        Ok(sealed)
    }

    /// Opens the memory that another process has. `None`: what is there is something else.
    ///
    /// Nothing is believed: whatever the other process has there, this neither blocks, nor does
    /// anything to it, nor makes memory of it that can change.
    pub(crate) fn open(place: Place) -> io::Result<Option<Self>> {
        if place.pid == 0 {
            // Whoever has it did not know where it is.
            return Err(failed("getpid")(Errno::PERM));
        }
        // Not opened before it is known to be memory: to open a pipe or a device is to do
        // something.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let seen = open(place.path(), flags, Mode::empty())?;
        let (device, inode) = look_at(&seen)?;
        if inode != place.inode || device != memory_device()? {
            return Ok(None);
        }
        let path = format!("/proc/self/fd/{}", seen.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self::of(off_standard(open(path, flags, Mode::empty())?)?)
    }

    /// The memory that a descriptor is of which another process has sent; of this inode, if one is
    /// named. As little is believed as where it is opened.
    ///
    /// # Errors
    /// With the descriptor when it is of something else, which may take its time to be closed.
    pub(crate) fn received(file: OwnedFd, inode: Option<u64>) -> Result<Self, NotSealed> {
        // Asked first, since the kernel itself answers: a file system's server may take its time.
        if !has_frozen_seals(file.as_fd()) {
            return Err(NotSealed::Other(file));
        }
        let (device, seen) = look_at(&file)?;
        if device != memory_device()? || inode.is_some_and(|inode| inode != seen) {
            return Err(NotSealed::Other(file));
        }
        let sealed = Self::of(file)?;
        sealed.ok_or_else(|| NotSealed::Refused(io::ErrorKind::InvalidData.into()))
    }

    /// `None`: this is no sealed memory file.
    fn of(file: OwnedFd) -> io::Result<Option<Self>> {
        let stat = fstat(&file).map_err(failed("fstat"))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || !has_frozen_seals(file.as_fd()) {
            return Ok(None);
        }
        let len = usize::try_from(stat.st_size).map_err(io::Error::other)?;
        // SAFETY: it is sealed against writing, shrinking and growing, and the kernel takes no seal
        // back.
        Ok(Some(unsafe { Self::of_constant(file, stat.st_ino, len) }))
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek};

    use super::*;

    /// One that somebody else has made of another size, before it was sealed, is not used.
    #[test]
    fn a_size_that_was_changed_is_noticed() {
        let file = memory_file_to_size("test").expect("memory");
        give_size(&file, 4096).expect("nobody else has it");
        has_size(&file, 4096).expect("it is so large");
        let error = has_size(&file, 8192).expect_err("it is not so large");
        assert!(error.to_string().contains("changed the size"), "{error}");
        // And nobody can change it after that.
        rustix::fs::ftruncate(&file, 0).expect_err("its size is sealed");
    }

    #[test]
    fn what_is_sealed_stays_as_it_is() {
        let sealed = Sealed::copy_of(b"hello").expect("memory");
        assert_eq!(sealed.bytes().unwrap(), b"hello");
        seek(sealed.file(), SeekFrom::Start(0)).expect("a file");
        assert!(rustix::io::write(sealed.file(), b"J").is_err());
        assert!(ftruncate(sealed.file(), 0).is_err());
        assert!(ftruncate(sealed.file(), 1 << 20).is_err());
        assert_eq!(sealed.bytes().unwrap(), b"hello");
    }

    #[test]
    fn who_opens_it_has_the_same_bytes_and_can_do_nothing_to_them() {
        let sealed = Sealed::copy_of(&[7; 10_000]).expect("memory");
        let opened = Sealed::open(sealed.place()).expect("it is there");
        let opened = opened.expect("it is sealed");
        assert_eq!(opened.bytes().unwrap(), sealed.bytes().unwrap());
        assert!(rustix::io::write(opened.file(), b"x").is_err());
        drop(sealed);
        assert_eq!(opened.bytes().unwrap(), [7; 10_000]);
    }

    #[test]
    fn what_was_filled_in_place_is_sealed_afterwards() {
        let sealed = Sealed::filled(10_000, |bytes| {
            assert_eq!(bytes, [0; 10_000]);
            bytes[9_999] = 7;
        });
        let sealed = sealed.expect("memory");
        assert_eq!(
            (
                sealed.bytes().unwrap().len(),
                sealed.bytes().unwrap()[9_999]
            ),
            (10_000, 7)
        );
        assert!(rustix::io::write(sealed.file(), b"x").is_err());
        let nothing = Sealed::filled(0, |bytes| assert!(bytes.is_empty()));
        assert!(nothing.expect("memory").bytes().unwrap().is_empty());
    }

    #[test]
    fn what_somebody_may_still_write_is_not_shared() {
        use rustix::mm::{MremapFlags, mremap};
        let mut held = None;
        let refused = Sealed::filled(4096, |bytes| {
            // As in a process that was forked in the meantime.
            let address = NonNull::new(bytes.as_mut_ptr()).expect("mapped");
            let flags = MremapFlags::MAYMOVE;
            // SAFETY: it is the whole of a shared mapping, which stays mapped during the call. An
            // old size of zero leaves it alone, and makes another one of the same pages.
            held = Some(unsafe { mremap(address.as_ptr().cast(), 0, 4096, flags) });
        });
        assert!(held.is_some_and(|held| held.is_ok()) && refused.is_err());
    }

    #[test]
    fn the_name_tells_the_same_as_the_newest_call() {
        let memory = memory_file_to_size("test").expect("memory");
        let looked = look_by_name(memory.as_fd()).expect("it is open");
        assert_eq!(looked, look_at(&memory).expect("it is open"));
        assert_eq!(looked.0, memory_device().expect("there is memory"));
        let file = OwnedFd::from(File::open("/proc/self/exe").expect("this program"));
        let (device, _) = look_by_name(file.as_fd()).expect("it is open");
        assert_ne!(device, memory_device().expect("there is memory"));
    }

    #[test]
    fn nothing_at_all_can_be_sealed() {
        let sealed = Sealed::copy_of(&[]).expect("memory");
        assert!(sealed.bytes().unwrap().is_empty());
        assert!(sealed.bytes().unwrap().as_ptr().cast::<u128>().is_aligned());
        assert!(sealed.place().has_it());
    }

    #[test]
    fn what_is_not_sealed_memory_is_refused() {
        let place = |file: &OwnedFd| Place {
            pid: std::process::id(),
            descriptor: file.as_raw_fd(),
            inode: fstat(file).expect("open").st_ino,
        };
        // It could change, or be cut short, under the reader.
        let open_memory = memfd_create("test", MemfdFlags::ALLOW_SEALING).expect("memory");
        assert!(Sealed::open(place(&open_memory)).unwrap().is_none());
        fcntl_add_seals(&open_memory, SealFlags::WRITE).expect("seals");
        assert!(Sealed::open(place(&open_memory)).unwrap().is_none());
        // A pipe that nobody writes to, which would block an opener otherwise.
        let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
        assert!(Sealed::open(place(&reader)).unwrap().is_none());
        let file = OwnedFd::from(File::open("/proc/self/exe").expect("this program"));
        assert!(Sealed::open(place(&file)).unwrap().is_none());
        // Another one than was meant.
        let sealed = Sealed::copy_of(b"1").expect("memory");
        let mut other = sealed.place();
        other.inode += 1;
        assert!(Sealed::open(other).unwrap().is_none());
        assert!(!other.has_it());
    }
}
