//! Connections, and descriptors that lie in their queues.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage, Shutdown,
    SocketType, recvmsg, sendmsg, shutdown,
};
use rustix::time::Timespec;

use super::descriptor::off_standard;
use super::poll::poll;
use super::socket::{RECEIVING, SENDING, keep_to_ourselves, socket_pair};
use crate::sys::refused::failed;

/// Both ends of a new connection.
pub(crate) fn connected_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socket_pair(SocketType::STREAM)
}

/// Leaves a copy of a descriptor in the queue of the other end of a connection.
pub(crate) fn leave_with_other_end(
    end: BorrowedFd<'_>,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let copies = [descriptor];
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(&copies));
    debug_assert!(fits, "there is space for one");
    let parts = [IoSlice::new(&[0])];
    retry_on_intr(|| sendmsg(end, &parts, &mut ancillary, SENDING)).map_err(failed("sendmsg"))?;
    Ok(())
}

/// Takes the descriptor that the other end has left here.
pub(crate) fn take_what_was_left(end: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(end, &mut parts, &mut ancillary, RECEIVING)
    })
    .map_err(failed("recvmsg"))?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut left) = message
            && let Some(descriptor) = left.next()
        {
            return off_standard(keep_to_ourselves(descriptor)?);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Ends a connection, even if other processes hold copies of this end.
pub(crate) fn hang_up(end: impl AsFd) {
    // It fails when the other end is closed already.
    let _ = shutdown(end, Shutdown::Both);
}

/// Whether the other end of a connection is closed.
pub(crate) fn is_hung_up(end: BorrowedFd<'_>) -> io::Result<bool> {
    // Nothing is asked for: a hang-up is always reported.
    let mut end = [PollFd::new(&end, PollFlags::empty())];
    retry_on_intr(|| poll(&mut end, Some(&Timespec::default())))?;
    Ok(end[0].revents().contains(PollFlags::HUP))
}
