//! A worker's hello: a message over a socket that the worker inherits. Of which form it is, and who
//! sends it, is in [`ipc_hello`](crate::ipc_hello), or, where that cannot be had, in `plain_hello`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(crate) use crate::ipc_hello::Sender;
#[cfg(any(procpool_portable, not(target_os = "linux")))]
pub(crate) use crate::plain_hello::Sender;
use crate::sys;

/// A number that nobody can guess, as bytes.
pub(crate) type Nonce = [u8; 16];

/// Which worker this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The worker's [`procpool_core::PROTOCOL_VERSION`].
    pub(crate) version: u32,
    /// The worker's process identifier, as it sees it.
    pub(crate) pid: u32,
    /// The nonce that the parent put into the environment.
    pub(crate) nonce: Nonce,
    /// The worker's [`procpool_core::build_identity`].
    pub(crate) identity: u128,
}

/// How long a hello is.
pub(crate) const HELLO_BYTES: usize = 40;

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.nonce);
        bytes[24..].copy_from_slice(&self.identity.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Self {
        fn part<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
            let mut part = [0; N];
            part.copy_from_slice(&bytes[start..start + N]);
            part
        }
        Self {
            version: u32::from_le_bytes(part(bytes, 0)),
            pid: u32::from_le_bytes(part(bytes, 4)),
            nonce: part(bytes, 8),
            identity: u128::from_le_bytes(part(bytes, 24)),
        }
    }
}

/// The two ends of a connection for a hello: what the parent hears it with, and the socket that
/// the worker inherits.
///
/// # Errors
/// When the system is out of descriptors.
pub(crate) fn connection() -> io::Result<(Receiver, OwnedFd)> {
    let (ours, theirs) = sys::message_sockets()?;
    Ok((Receiver(ours), theirs))
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Receiver {
    /// The next hello, if it has arrived.
    ///
    /// # Errors
    /// When nobody can send one any more, or something else was sent.
    pub(crate) fn try_recv(&self) -> io::Result<Option<Hello>> {
        const WORD: usize = size_of::<usize>();
        const WHOLE: usize = 2 * WORD + HELLO_BYTES;
        let mut message = [0; WHOLE];
        match sys::receive(self.0.as_fd(), &mut message)? {
            None => return Ok(None),
            Some(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(_) => {}
        }
        let (whole, content) = message.split_at(WORD);
        let (length, content) = content.split_at(WORD);
        let is_message = whole == WHOLE.to_ne_bytes() && length == HELLO_BYTES.to_ne_bytes();
        match <&[u8; HELLO_BYTES]>::try_from(content) {
            Ok(content) if is_message => Ok(Some(Hello::decode(content))),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what came in place of a hello is no message",
            )),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{self, IoSlice};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::{Hello, connection};

    pub(crate) fn hello() -> Hello {
        Hello {
            version: 1,
            pid: 300,
            nonce: [7; 16],
            identity: 4,
        }
    }

    fn send(socket: &OwnedFd, bytes: &[u8], along: &mut SendAncillaryBuffer<'_, '_, '_>) {
        let bytes = [IoSlice::new(bytes)];
        sendmsg(socket, &bytes, along, SendFlags::NOSIGNAL).expect("room");
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let (receiver, theirs) = connection().expect("sockets");
        let whole = [
            &56_usize.to_ne_bytes()[..],
            &40_usize.to_ne_bytes(),
            &hello().encode(),
        ]
        .concat();
        let mut changed = [whole.clone(), whole.clone(), whole.clone(), whole.clone()];
        changed[0].pop();
        changed[1].push(0);
        changed[2][0] += 1;
        changed[3][8] += 1;
        for message in &changed {
            send(&theirs, message, &mut SendAncillaryBuffer::default());
            let error = receiver.try_recv().expect_err("no hello");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        send(&theirs, &whole, &mut SendAncillaryBuffer::default());
        assert_eq!(receiver.try_recv().expect("a hello"), Some(hello()));
        // Descriptors are not taken.
        let mut space = [MaybeUninit::uninit(); 64];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let nothing = io::stdout();
        let descriptors = [nothing.as_fd()];
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
        send(&theirs, &whole, &mut along);
        let error = receiver.try_recv().expect_err("a descriptor");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
