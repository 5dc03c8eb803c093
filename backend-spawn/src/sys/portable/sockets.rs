//! Sockets that keep messages apart.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procpool_core::{failed, off_standard};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The two ends of a connection that keeps messages apart; neither is one of the standard three.
/// The first one is to be read by [`receive`].
pub(crate) fn message_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::DGRAM;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None)
        .map_err(failed("socketpair"))?;
    let ready = |end: OwnedFd| -> io::Result<OwnedFd> {
        let end = off_standard(end)?;
        fcntl_setfd(&end, FdFlags::CLOEXEC).map_err(failed("fcntl(F_SETFD)"))?;
        ioctl_fionbio(&end, true).map_err(failed("ioctl(FIONBIO)"))?;
        Ok(end)
    };
    Ok((ready(ours)?, ready(theirs)?))
}

/// Sends a message.
pub(crate) fn send_hello(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let parts = [IoSlice::new(message)];
    let mut nothing = SendAncillaryBuffer::default();
    let flags = SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(socket, &parts, &mut nothing, flags)).map_err(failed("sendmsg"))?;
    Ok(())
}

/// Takes the message that waits at a socket, if there is one, and says how long it is.
///
/// # Errors
/// Of kind `InvalidData` when it has another length than `into`, or brings descriptors along, which
/// are closed.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    let most = into.len();
    let (mut nothing, mut more) = (RecvAncillaryBuffer::default(), [0]);
    let received = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(into), IoSliceMut::new(&mut more)];
        recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut nothing,
            RecvFlags::DONTWAIT,
        )
    });
    let received = match received {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(failed("recvmsg")(errno)),
    };
    let brings = received.flags.contains(ReturnFlags::CTRUNC);
    if received.bytes != most || brings {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what came in place of a hello is no message",
        ));
    }
    Ok(Some(received.bytes))
}
