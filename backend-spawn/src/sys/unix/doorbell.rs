//! The doorbell: a pipe.

use std::io::{self, PipeReader, PipeWriter};

use procpool_core::{failed, failed_in, off_standard};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};
use rustix::io::{fcntl_dupfd_cloexec, ioctl_fionbio, retry_on_intr};
use rustix::stdio::{dup2_stdin, stdin};

use super::inherited::inode;

/// A new doorbell, of which neither end blocks.
pub(crate) fn make_doorbell() -> io::Result<(PipeReader, PipeWriter)> {
    let (ours, theirs) = io::pipe().map_err(failed_in("pipe2"))?;
    let (ours, theirs) = (off_standard(ours)?, off_standard(theirs)?);
    for end in [&ours, &theirs] {
        ioctl_fionbio(end, true).map_err(failed("ioctl(FIONBIO)"))?;
    }
    Ok((ours.into(), theirs.into()))
}

/// Whether standard input is an end of this pipe.
pub(crate) fn stdin_is_doorbell(wanted: u64) -> bool {
    let is_pipe = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    fstat(stdin()).is_ok_and(is_pipe) && inode(stdin()).is_ok_and(|seen| seen == wanted)
}

/// Writes a short message to a doorbell that is still the standard input.
pub(crate) fn write_to_stdin(message: &[u8]) {
    // Its reader may be gone, and then nobody misses it.
    let _ = rustix::io::write(stdin(), message);
}

/// Moves the doorbell away from standard input, which becomes empty, to a descriptor that the
/// worker's children do not inherit.
pub(crate) fn take_stdin() -> io::Result<PipeWriter> {
    let doorbell = fcntl_dupfd_cloexec(stdin(), 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))?;
    let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    retry_on_intr(|| dup2_stdin(&nothing)).map_err(failed("dup2"))?;
    Ok(doorbell.into())
}
