//! How a worker says hello where ipc-channel has no sockets that could be inherited: by a message
//! of the same form.

use std::io;
use std::os::fd::OwnedFd;

use crate::hello::{HELLO_BYTES, Hello};
use crate::sys;

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Sender(OwnedFd);

impl Sender {
    /// A sender whose messages go to the other end of this socket.
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, hello: &Hello) -> io::Result<()> {
        let content = hello.encode();
        let length = HELLO_BYTES.to_ne_bytes();
        let whole = (2 * length.len() + HELLO_BYTES).to_ne_bytes();
        let message = [&whole[..], &length, &content].concat();
        sys::send_hello(&self.0, &message)
    }
}
