//! What workers print into, and where that goes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fionbio};

use super::descriptor::off_standard;
use super::file_size::without_size_signal;
use super::poll::poll;
use crate::sys::refused::{errno_of, failed, failed_in};

/// A pipe whose reading end does not block, but whose writing end does: that is what programs
/// expect of their output.
pub(crate) fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = io::pipe().map_err(failed_in("pipe2"))?;
    let (ours, theirs) = (off_standard(ours)?, off_standard(theirs)?);
    never_block(&ours)?;
    Ok((ours, theirs))
}

/// From now on, whoever reads or writes there does not wait.
pub(crate) fn never_block(end: &OwnedFd) -> io::Result<()> {
    ioctl_fionbio(end, true).map_err(failed("ioctl"))
}

/// What is written there is nowhere.
pub(crate) fn null_output() -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    off_standard(open("/dev/null", flags, Mode::empty()).map_err(failed("open"))?)
}

/// Reads what is there; 0: nothing will come any more.
pub(crate) fn read(from: &OwnedFd, into: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::read(from, into)
}

/// Writes as much as there is room for.
#[cfg(feature = "tracing")]
pub(crate) fn write(to: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::write(to, bytes)
}

/// One of this program's own outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Standard {
    Output,
    Error,
}

/// Writes to the program's own output as a worker would: past the standard library's lock and
/// buffer, since their owner may be waiting for the pool.
pub(crate) fn write_past_locks(standard: Standard, mut bytes: &[u8]) {
    let output = match standard {
        Standard::Output => rustix::stdio::stdout(),
        Standard::Error => rustix::stdio::stderr(),
    };
    while !bytes.is_empty() {
        // A file at its limit is no reason for the program to die: it loses what its workers say.
        let written =
            without_size_signal(|| rustix::io::write(output, bytes).map_err(failed("write")));
        match written.map_err(|error| errno_of(&error)) {
            Ok(count) => bytes = &bytes[count..],
            Err(Some(Errno::INTR)) => {}
            Err(Some(Errno::AGAIN)) => {
                let mut room = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::OUT)];
                match poll(&mut room, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            // It is closed, and nobody misses it.
            Err(_) => return,
        }
    }
}
