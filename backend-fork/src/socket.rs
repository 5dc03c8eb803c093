//! The sockets between the parent and the fork server.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use procpool_core::{off_standard, poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};

use crate::message::{MESSAGE_BYTES, OUTFIT};

/// The most descriptors that go with one message.
const DESCRIPTORS: usize = OUTFIT;

/// See [`off_standard`].
pub(crate) fn above(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    off_standard(descriptor).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
}

/// One end of a connection that keeps messages apart (SOCK_SEQPACKET), carries descriptors, and
/// says when the other end is closed. No call on it ever blocks.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Both ends of a new connection. Neither survives an `exec`. An error comes with the call that
    /// it is of.
    pub(crate) fn pair() -> Result<(Self, Self), (&'static str, Errno)> {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (one, other) = pair.map_err(|errno| ("socketpair", errno))?;
        // That it cannot receive is known here, where the error has somewhere to go. Later it would
        // look as if the other end were closed.
        let parts = &mut [IoSliceMut::new(&mut [])];
        let nothing = &mut RecvAncillaryBuffer::default();
        match recvmsg(&one, parts, nothing, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) | Ok(_) => {}
            Err(errno) => return Err(("recvmsg", errno)),
        }
        let above = |end| above(end).map_err(|errno| ("fcntl", errno));
        Ok((Self(above(one)?), Self(above(other)?)))
    }

    /// Sends one message with copies of these descriptors.
    pub(crate) fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(fits, "a message carries at most {DESCRIPTORS} descriptors");
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Receives one message.
    pub(crate) fn receive(&self) -> Received {
        // One more, so that what is too long does not look as if it were not.
        let mut bytes = vec![0; MESSAGE_BYTES + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        loop {
            let parts = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, parts, &mut ancillary, flags) {
                Ok(message) if message.bytes == 0 => return Received::End,
                Ok(message) => {
                    bytes.truncate(message.bytes);
                    break;
                }
                Err(Errno::AGAIN) => return Received::Nothing,
                // The other end was closed before it had read everything. Said once; what it has
                // sent before can still be received.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(_) => return Received::End,
            }
        }
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .filter_map(|descriptor| above(descriptor).ok())
            .collect();
        Received::Message { bytes, descriptors }
    }

    /// Whether the other end is closed. There may still be messages of it.
    pub(crate) fn is_hung_up(&self) -> bool {
        // Nothing is asked for: a hang-up is always reported.
        let mut source = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Where this fails, receiving and sending fail as well.
        let _ = poll(&mut source, Some(&now));
        source[0].revents().contains(PollFlags::HUP)
    }

    /// Ends the connection, even if other processes hold copies of this end.
    pub(crate) fn shut_down(&self) {
        // It fails when the other end is closed already.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    /// Takes an end that another process has sent.
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

/// The answer of [`Socket::receive`].
#[derive(Debug)]
pub(crate) enum Received {
    /// There is none yet.
    Nothing,
    /// The other end is closed, and there will be no more.
    End,
    /// A message.
    Message {
        bytes: Vec<u8>,
        /// In the order in which they were sent. Those for which this process had no room (its
        /// limit of open files) are missing.
        descriptors: Vec<OwnedFd>,
    },
}
