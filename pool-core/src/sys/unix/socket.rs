//! Pairs of sockets of which neither end blocks, is inherited, or sends a signal.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

use super::descriptor::off_standard;
use crate::sys::refused::failed;

/// How something is sent.
#[cfg(not(target_vendor = "apple"))]
pub(in crate::sys) const SENDING: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
/// The same where each socket says for itself that it sends no signal.
#[cfg(target_vendor = "apple")]
pub(in crate::sys) const SENDING: SendFlags = SendFlags::DONTWAIT;

/// How something is received that may have descriptors with it.
#[cfg(not(target_vendor = "apple"))]
pub(in crate::sys) const RECEIVING: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
/// The same where each descriptor is kept from programs that are executed [for
/// itself](keep_to_ourselves).
#[cfg(target_vendor = "apple")]
pub(in crate::sys) const RECEIVING: RecvFlags = RecvFlags::DONTWAIT;

/// Both ends of a new connection.
#[cfg(not(target_vendor = "apple"))]
pub(in crate::sys) fn socket_pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) =
        socketpair(AddressFamily::UNIX, kind, flags, None).map_err(failed("socketpair"))?;
    Ok((off_standard(one)?, off_standard(other)?))
}

/// Both ends of a new connection.
#[cfg(target_vendor = "apple")]
pub(in crate::sys) fn socket_pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None)
        .map_err(failed("socketpair"))?;
    let ready = |end: OwnedFd| -> io::Result<OwnedFd> {
        let end = off_standard(keep_to_ourselves(end)?)?;
        rustix::io::ioctl_fionbio(&end, true).map_err(failed("ioctl(FIONBIO)"))?;
        rustix::net::sockopt::set_socket_nosigpipe(&end, true)
            .map_err(failed("setsockopt(SO_NOSIGPIPE)"))?;
        Ok(end)
    };
    Ok((ready(one)?, ready(other)?))
}

/// Keeps a descriptor that has come from programs that this process executes. (One that another
/// thread executes at this moment may have it.)
pub(in crate::sys) fn keep_to_ourselves(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    #[cfg(target_vendor = "apple")]
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)
        .map_err(failed("fcntl(F_SETFD)"))?;
    Ok(descriptor)
}
