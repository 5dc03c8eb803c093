//! Linux: packets that have descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use rustix::time::Timespec;

use super::linux::off_standard;
use super::refused::{errno_of, failed};
use super::waiting::poll;

/// The most descriptors that the kernel takes with one packet (`SCM_MAX_FD`).
pub(crate) const MAX_PASSED: usize = 253;

/// Both ends of a new connection that carries packets.
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(failed("socketpair"))?;
    Ok((off_standard(one)?, off_standard(other)?))
}

/// A packet that has come.
#[derive(Debug)]
pub(crate) struct Packet {
    /// How many bytes it has.
    pub(crate) bytes: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// What it had more of did not fit, or this process may have no more descriptors.
    pub(crate) is_cut: bool,
}

/// Sends a packet, all of it or nothing. It does not wait.
pub(crate) fn send_packet(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(failed("sendmsg")(Errno::INVAL));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let parts = [IoSlice::new(bytes)];
    retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, flags)).map_err(failed("sendmsg"))?;
    Ok(())
}

/// Whether a packet could not be sent for now: too much is on its way, here (`EAGAIN`) or of this
/// user altogether (`ETOOMANYREFS`).
pub(crate) fn is_congested(error: &io::Error) -> bool {
    matches!(
        errno_of(error),
        Some(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Takes the next packet. `None`: there is none yet. Its descriptors are close-on-exec.
///
/// # Errors
/// Of kind `BrokenPipe` when the other end is closed; else the system's.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(into)];
        recvmsg(socket, &mut parts, &mut ancillary, flags)
    });
    let received = match received {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(failed("recvmsg")(errno)),
    };
    let mut is_short = false;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        let RecvAncillaryMessage::ScmRights(passed) = message else {
            continue;
        };
        for descriptor in passed {
            match off_standard(descriptor) {
                // Those behind one that is lost would be taken for it.
                Ok(descriptor) if !is_short => descriptors.push(descriptor),
                Ok(_) => {}
                Err(_) => is_short = true,
            }
        }
    }
    let is_cut = is_short
        || received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if received.bytes == 0 && descriptors.is_empty() {
        // There are no empty packets.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(Some(Packet {
        bytes: received.bytes,
        descriptors,
        is_cut,
    }))
}

/// Waits until there is a packet, or the other end is closed, for so long at most. `false`: neither
/// has happened.
pub(crate) fn wait_for_packet(socket: BorrowedFd<'_>, nanoseconds: u64) -> io::Result<bool> {
    let limit = Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    };
    let mut sources = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    match poll(&mut sources, Some(&limit)) {
        Ok(count) => Ok(count > 0),
        // The caller looks at the time.
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(failed("poll")(errno)),
    }
}
