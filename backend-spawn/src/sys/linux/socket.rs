//! The sockets behind ipc-channel's channels.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketType, recv,
    recvmsg, send,
};

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
    // SAFETY: only asked about; if there is no such descriptor, the answer is an error.
    let socket = unsafe { BorrowedFd::borrow_raw(number) };
    // What is another socket is left alone: to look at it may have effects.
    if socket_domain(socket) != Ok(AddressFamily::UNIX)
        || socket_type(socket) != Ok(SocketType::SEQPACKET)
    {
        return false;
    }
    let mut message = [0; 256];
    peek(socket, &mut message).is_ok_and(|peeked| {
        let message = &message[..peeked.bytes.min(message.len())];
        message.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// Sends a few bytes from a socket to its peer.
pub(crate) fn send_back(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| send(socket, bytes, flags))?;
    Ok(())
}

/// Takes a message out of a socket where one waits.
pub(crate) fn drop_message(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nothing: &mut [u8] = &mut [0];
    rustix::io::retry_on_intr(|| recv(socket, &mut *nothing, RecvFlags::DONTWAIT))?;
    Ok(())
}

/// Whether ipc-channel can be trusted with the message that waits at a socket, if one does: it has
/// the lengths that it says it has, and brings no descriptors along.
///
/// # Errors
/// Of kind `InvalidData` when it cannot.
pub(crate) fn check_message(socket: BorrowedFd<'_>) -> io::Result<()> {
    const WORD: usize = size_of::<usize>();
    // The length with this head, and that without it.
    let mut head = [0; 2 * WORD];
    let peeked = match peek(socket, &mut head) {
        Ok(peeked) => peeked,
        Err(Errno::AGAIN) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if peeked.bytes == 0 {
        // The end: nobody can send any more.
        return Ok(());
    }
    let (whole, content) = head.split_at(WORD);
    let is = |bytes: &[u8], length: Option<usize>| {
        length.is_some_and(|length| bytes == length.to_ne_bytes())
    };
    let brings = peeked.flags.contains(ReturnFlags::CTRUNC);
    if is(whole, Some(peeked.bytes)) && is(content, peeked.bytes.checked_sub(head.len())) && !brings
    {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what came in place of a hello is no message",
        ))
    }
}

/// What waits at a socket: its beginning, how long it is, and, as `CTRUNC`, whether descriptors
/// come along.
fn peek(socket: BorrowedFd<'_>, into: &mut [u8]) -> rustix::io::Result<rustix::net::RecvMsg> {
    let mut nothing = RecvAncillaryBuffer::default();
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(into)], &mut nothing, flags))
}

/// A copy of a descriptor that is not one of the standard three, and is not inherited as it is.
pub(crate) fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(descriptor, 3)?)
}

/// Puts a descriptor in the place of another, which is closed.
///
/// # Safety
/// Whoever owns the descriptor `number` expects that: it may be any socket of its kind.
pub(crate) unsafe fn replace(number: RawFd, by: OwnedFd) -> io::Result<()> {
    // SAFETY: it is open, and stays its owner's.
    let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    dup3(by, &mut place, DupFlags::CLOEXEC)?;
    Ok(())
}

/// Gives this thread, which must not be the only one, a table of descriptors of its own, in which
/// there is nothing but standard input, output and error. What it opens, nobody else has, and it is
/// closed when the thread ends.
pub(crate) fn own_descriptors() -> io::Result<()> {
    // SAFETY: it closes descriptors in a copy of the table, and leaves the other threads theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_UNSHARE,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
