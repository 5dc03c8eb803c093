//! The sockets behind ipc-channel's channels.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use procpool_core::{failed, off_standard};
use rustix::io::{DupFlags, Errno, dup3, retry_on_intr};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};

use crate::sys::unix::ask;

/// No descriptor of this process has this number or a higher one.
pub(crate) fn most_descriptors() -> RawFd {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(current, _)| current);
    // Without a limit, or where nobody says it: the highest that the kernel allows unless it is
    // told otherwise.
    let limit = limit.ok().filter(|limit| *limit != RLIM_INFINITY);
    limit.map_or(1 << 20, |limit| {
        RawFd::try_from(limit).unwrap_or(RawFd::MAX)
    })
}

/// Whether this descriptor is a socket as ipc-channel makes them, and a message waits there in
/// which these bytes are. The message stays there.
pub(crate) fn has_message(number: RawFd, bytes: &[u8; 16]) -> bool {
    if number < 0 {
        return false;
    }
    ask(number, |socket| {
        // What is another socket is left alone: to look at it may have effects.
        if socket_domain(socket) != Ok(AddressFamily::UNIX)
            || socket_type(socket) != Ok(SocketType::SEQPACKET)
        {
            return false;
        }
        let mut message = [0; 256];
        take(socket, &mut message, RecvFlags::PEEK).is_ok_and(|peeked| {
            let message = &message[..peeked.bytes.min(message.len())];
            message.windows(bytes.len()).any(|window| window == bytes)
        })
    })
}

/// Sends a few bytes from a socket to its peer.
pub(crate) fn send_back(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| send(socket, bytes, flags)).map_err(failed("sendto"))?;
    Ok(())
}

/// The two ends of a connection that keeps messages apart, as ipc-channel has them; neither is one
/// of the standard three. The first one is to be read by [`receive`].
pub(crate) fn message_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, theirs) =
        socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None).map_err(failed("socketpair"))?;
    Ok((off_standard(ours)?, off_standard(theirs)?))
}

/// Takes the message that waits at a socket, if there is one, and says how long it is; 0: nobody
/// can send one any more.
///
/// # Errors
/// Of kind `InvalidData` when it has another length than `into`, or brings descriptors along, which
/// are closed.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    let most = into.len();
    let received = match take(socket, into, RecvFlags::empty()) {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(failed("recvmsg")(errno)),
    };
    let brings = received.flags.contains(ReturnFlags::CTRUNC);
    if (received.bytes != most && received.bytes != 0) || brings {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what came in place of a hello is no message",
        ));
    }
    Ok(Some(received.bytes))
}

/// What waits at a socket: its beginning, how long it is, and, as `CTRUNC`, whether descriptors
/// come along.
fn take(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    more: RecvFlags,
) -> rustix::io::Result<rustix::net::RecvMsg> {
    let mut nothing = RecvAncillaryBuffer::default();
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | more;
    retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(into)], &mut nothing, flags))
}

/// Puts a descriptor in the place of another, which is closed.
///
/// # Safety
/// The owner of the descriptor `number` expects that: it may be any socket of its kind.
pub(crate) unsafe fn replace(number: RawFd, by: OwnedFd) -> io::Result<()> {
    // SAFETY: it is open, and stays its owner's.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    retry_on_intr(|| dup3(&by, &mut place, DupFlags::CLOEXEC)).map_err(failed("dup3"))?;
    Ok(())
}
