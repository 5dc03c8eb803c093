//! Packets that have descriptors with them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SocketType, recvmsg, sendmsg,
};
use rustix::time::Timespec;

use super::descriptor::off_standard;
use super::poll::poll;
use super::socket::{RECEIVING, SENDING, keep_to_ourselves, socket_pair};
use crate::sys::refused::{errno_of, failed};

/// The most descriptors that are sent with one packet: what Linux takes (`SCM_MAX_FD`). Others take
/// about twice as many.
pub(crate) const MAX_PASSED: usize = 253;

/// One end hears when the other one is closed.
#[cfg(all(target_os = "linux", not(procpool_portable)))]
const KIND: SocketType = SocketType::SEQPACKET;
/// One end does not hear when the other one is closed: nobody relies on that alone.
#[cfg(any(procpool_portable, not(target_os = "linux")))]
const KIND: SocketType = SocketType::DGRAM;

/// Both ends of a new connection that carries packets.
#[cfg(target_os = "linux")]
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socket_pair(KIND)
}

/// The same where 2 KiB are the longest packet unless one asks for more.
#[cfg(not(target_os = "linux"))]
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

    const ROOM: usize = 64 << 10;
    let (one, other) = socket_pair(KIND)?;
    for end in [&one, &other] {
        set_socket_send_buffer_size(end, ROOM).map_err(failed("setsockopt(SO_SNDBUF)"))?;
        set_socket_recv_buffer_size(end, ROOM).map_err(failed("setsockopt(SO_RCVBUF)"))?;
    }
    Ok((one, other))
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
    let parts = [IoSlice::new(bytes)];
    retry_on_intr(|| sendmsg(socket, &parts, &mut ancillary, SENDING))
        .map_err(failed("sendmsg"))?;
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

/// The other end may have been closed with packets in it that nobody has taken (`ECONNRESET`). That
/// is said once, and before what has come from there.
fn retry_on_reset<T>(mut receive: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match retry_on_intr(&mut receive) {
        Err(Errno::CONNRESET) => retry_on_intr(receive),
        received => received,
    }
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
    let received = match retry_on_reset(|| {
        let mut parts = [IoSliceMut::new(into)];
        recvmsg(socket, &mut parts, &mut ancillary, RECEIVING)
    }) {
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
            match keep_to_ourselves(descriptor).and_then(off_standard) {
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

/// Whether there are packets that nobody has taken, also if the other end is closed. Not for a
/// socket that is used after that.
#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(crate) fn has_packets(socket: BorrowedFd<'_>) -> bool {
    // From now on each packet has something with it, which there is no space for: so an empty one
    // is told from the end.
    if rustix::net::sockopt::set_socket_passcred(socket, true).is_err() {
        return true;
    }
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let looked = retry_on_reset(|| {
        let mut parts = [IoSliceMut::new(&mut [])];
        recvmsg(
            socket,
            &mut parts,
            &mut RecvAncillaryBuffer::default(),
            flags,
        )
    });
    looked.is_ok_and(|looked| looked.flags.contains(ReturnFlags::CTRUNC))
}

/// Whether there are packets that nobody has taken, also if the other end is closed.
#[cfg(any(procpool_portable, not(target_os = "linux")))]
pub(crate) fn has_packets(socket: BorrowedFd<'_>) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    retry_on_reset(|| rustix::net::recv(socket, &mut [0_u8; 1][..], flags)).is_ok()
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn files(count: usize) -> Vec<OwnedFd> {
        let pipes = (0..count).map(|_| std::io::pipe().expect("descriptors").0.into());
        pipes.collect()
    }

    fn send(socket: &OwnedFd, bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
        let files: Vec<_> = files.iter().map(|it| it.as_fd()).collect();
        send_packet(socket.as_fd(), bytes, &files)
    }

    /// The other end is closed, and that is heard where it can be.
    fn assert_ended(one: &OwnedFd) {
        let received = receive_packet(one.as_fd(), &mut [0; 100]);
        match KIND {
            SocketType::SEQPACKET => {
                let error = received.expect_err("it is closed");
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
            _ => assert!(received.is_ok_and(|packet| packet.is_none())),
        }
    }

    #[test]
    fn a_packet_comes_as_it_was_sent() {
        let (one, other) = packet_pair().expect("descriptors");
        let mut bytes = [0; 100];
        assert!(receive_packet(one.as_fd(), &mut bytes).unwrap().is_none());
        for count in [0, 1, 2, MAX_PASSED] {
            send(&other, b"hello", &files(count)).expect("there is room");
            let packet = receive_packet(one.as_fd(), &mut bytes).unwrap();
            let packet = packet.expect("it was sent");
            assert_eq!(&bytes[..packet.bytes], b"hello");
            assert_eq!((packet.descriptors.len(), packet.is_cut), (count, false));
            for descriptor in packet.descriptors {
                let flags = rustix::io::fcntl_getfd(&descriptor).expect("it is open");
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
        assert!(send(&other, b"too many", &files(MAX_PASSED + 1)).is_err());
        drop(other);
        assert_ended(&one);
    }

    /// A worker that dies has packets of the items that it was to run next.
    #[test]
    fn what_was_sent_before_the_end_comes() {
        let (one, other) = packet_pair().expect("descriptors");
        let mut bytes = [0; 100];
        send(&one, b"never taken", &files(1)).expect("there is room");
        send(&other, b"last words", &files(2)).expect("there is room");
        drop(other);
        let packet = receive_packet(one.as_fd(), &mut bytes).unwrap();
        let packet = packet.expect("it was sent");
        assert_eq!(&bytes[..packet.bytes], b"last words");
        assert_eq!(packet.descriptors.len(), 2);
        assert_ended(&one);
    }

    #[test]
    fn a_long_packet_is_cut() {
        let (one, other) = packet_pair().expect("descriptors");
        send(&other, &[7; 101], &files(3)).expect("there is room");
        let packet = receive_packet(one.as_fd(), &mut [0; 100]).unwrap();
        let packet = packet.expect("it was sent");
        assert_eq!((packet.bytes, packet.is_cut), (100, true));
    }

    #[test]
    fn a_full_socket_is_congested() {
        let (one, other) = packet_pair().expect("descriptors");
        let file = files(1);
        let error = loop {
            if let Err(error) = send(&other, b"more", &file) {
                break error;
            }
        };
        assert!(is_congested(&error), "{error}");
        receive_packet(one.as_fd(), &mut [0; 8])
            .unwrap()
            .expect("many");
        send(&other, b"one more", &file).expect("there is room again");
    }

    #[test]
    fn packets_that_are_left_are_found() {
        for bytes in [&b"left"[..], b""] {
            for count in [0, 1, 5] {
                let (one, other) = packet_pair().expect("descriptors");
                assert!(!has_packets(one.as_fd()));
                send(&other, bytes, &files(count)).expect("there is room");
                assert!(has_packets(one.as_fd()), "{count} with {bytes:?}");
                drop(other);
                assert!(has_packets(one.as_fd()), "{count} with {bytes:?}");
            }
        }
        let (one, other) = packet_pair().expect("descriptors");
        send(&one, b"never taken", &files(1)).expect("there is room");
        send(&other, b"left", &files(1)).expect("there is room");
        drop(other);
        assert!(has_packets(one.as_fd()));
        let (one, other) = packet_pair().expect("descriptors");
        send(&one, b"never taken", &files(1)).expect("there is room");
        drop(other);
        assert!(!has_packets(one.as_fd()));
    }
}
