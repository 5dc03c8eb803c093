//! How a worker says hello by ipc-channel, over a socket that it inherits.
//!
//! ipc-channel connects strangers by a one-shot server, which is a socket with a name in the
//! temporary folder: files that a process which is killed leaves behind, a wait in `accept`, and
//! other users at the door. A parent and its child do not need that, for a child inherits
//! descriptors. But ipc-channel makes no channel from a descriptor.
//!
//! Two facts help. Its channels are pairs of connected sockets of the type `SEQPACKET`, each of
//! which goes both ways, and what is sent waits in the receiving socket. So a message that nobody
//! else can have written is sent through a new channel, and the descriptor behind which it is
//! waiting is the receiver's; another one that is sent from there waits behind the sender's
//! ([`Sender::find`]). Their texts for debugging say where to look first; should a later version
//! of ipc-channel say nothing there, all descriptors are tried, so that nothing depends on these
//! texts but speed. With the number known, the worker puts the socket that it has inherited in the
//! place of the sender's, by `dup3`. ipc-channel keeps nothing of a socket but its number, and only
//! the owner of a sender closes it or changes what is behind that number.
//!
//! The parent makes the pair of sockets, and reads what arrives: a message of ipc-channel's is its
//! own length, the length of its content, and the content. It does not use ipc-channel for that.
//! ipc-channel asks the system for a pair of sockets of its own at its first use, and a process in
//! which that fails can never use it again: it panics. In a worker this costs one launch; in the
//! parent it would cost all pools. Also, ipc-channel believes the lengths that it reads.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender};
use procpool_core::failed;
use rustix::io::Errno;

use crate::hello::{Hello, Nonce};
use crate::sys;

/// The sending side.
#[derive(Debug)]
pub(crate) struct Sender(IpcBytesSender);

impl Sender {
    /// In a worker, which is still alone: the sender of the channel of which it has inherited the
    /// sending socket.
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        without_hook(|| {
            let (sender, receiver) =
                ipc::bytes_channel().map_err(|error| named("socketpair", error))?;
            let sender = Self(sender);
            let number = sender.find(&receiver)?;
            // SAFETY: the descriptor belongs to the sender, which is ours, and which takes one
            // connected socket of this type like another.
            unsafe { sys::replace(number, socket)? };
            Ok(sender)
        })
    }

    /// The number of the descriptor of its socket.
    fn find(&self, receiver: &IpcBytesReceiver) -> io::Result<RawFd> {
        let mark: Nonce = sys::random()?;
        self.send_bytes(&mark)?;
        let receiver = find(&format!("{receiver:?}"), &mark)?;
        // SAFETY: the receiver, which has it open, is borrowed.
        let receiver = unsafe { BorrowedFd::borrow_raw(receiver) };
        sys::send_back(receiver, &mark)?;
        find(&format!("{:?}", self.0), &mark)
    }

    /// Sends a hello. It fits into the socket, so this does not wait.
    pub(crate) fn send(&self, hello: &Hello) -> io::Result<()> {
        self.send_bytes(&hello.encode())
    }

    fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match caught(|| self.0.send(bytes))? {
                // A signal came, and nothing was sent.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map_err(|error| named("sendmsg", error)),
            }
        }
    }
}

/// An error that names its system call.
fn named(call: &'static str, error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(errno) => failed(call)(errno),
        None => error,
    }
}

/// The number of the descriptor at which this mark waits; the text says where to look first.
fn find(text: &str, mark: &Nonce) -> io::Result<RawFd> {
    numbers(text)
        .chain(0..sys::most_descriptors())
        .find(|&number| sys::has_message(number, mark))
        .ok_or_else(|| io::Error::other("ipc-channel's socket cannot be found by recvmsg"))
}

/// The numbers in a text that can be those of descriptors.
fn numbers(text: &str) -> impl Iterator<Item = RawFd> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
}

/// In a process that is alone in its hook for panics: calls what may panic without a word.
fn without_hook<T>(f: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = f();
    std::panic::set_hook(hook);
    result
}

/// Calls ipc-channel, which panics where it gets no socket at its first use.
fn caught<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    // What `f` leaves behind when it panics is thread-local and empty.
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| {
        io::Error::other("ipc-channel got no socket (socketpair or getsockopt) at its first use")
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use ipc_channel::ipc;

    use super::{Sender, find, numbers};
    use crate::hello::connection;
    use crate::hello::tests::hello;
    use crate::sys;

    /// Otherwise all descriptors are looked at for each worker.
    #[test]
    fn the_socket_is_where_its_text_says() {
        let (sender, receiver) = ipc::bytes_channel().expect("sockets");
        let sender = Sender(sender);
        let text = format!("{:?}", sender.0);
        let number = sender.find(&receiver).expect("a socket");
        assert_eq!(numbers(&text).next(), Some(number), "{text}");
    }

    #[test]
    fn a_socket_is_found_among_all_descriptors() {
        let (receiver, theirs) = connection().expect("sockets");
        let mark = sys::random().expect("numbers");
        sys::send_back(theirs.as_fd(), &mark).expect("room");
        let number = find("", &mark).expect("a socket");
        assert_eq!(number, receiver.as_fd().as_raw_fd());
        let has_it = |&number: &i32| sys::has_message(number, &mark);
        let mut others = number + 1..sys::most_descriptors();
        assert_eq!(others.find(has_it), None);
    }

    #[test]
    fn an_inherited_socket_takes_the_place_of_the_senders() {
        let (receiver, inherited) = connection().expect("sockets");
        assert!(inherited.as_raw_fd() > 2);
        assert_eq!(receiver.try_recv().expect("it is open"), None);
        let sender = Sender::over(inherited).expect("sockets");
        sender.send(&hello()).expect("room");
        assert_eq!(receiver.try_recv().expect("a hello"), Some(hello()));
        assert_eq!(receiver.try_recv().expect("it is open"), None);
        drop(sender);
        receiver.try_recv().expect_err("nobody can send any more");
    }
}
