//! ipc-channel between a parent and its worker, over sockets that the worker inherits.
//!
//! ipc-channel connects strangers by a one-shot server, which is a socket with a name in the
//! temporary folder: files that a process which is killed leaves behind, a wait in `accept`, and
//! other users at the door. A parent and its child do not need that, for a child inherits
//! descriptors. But ipc-channel makes no channel from a descriptor, and gives none away. (One may
//! send it through another channel; but as long as a descriptor is on its way, the kernel looks
//! for cycles of such with each socket that is closed, which all workers do when they start.)
//!
//! Two facts help. Its channels are pairs of connected sockets of the type `SEQPACKET`, each of
//! which goes both ways, and what is sent waits in the receiving socket. So a message that nobody
//! else can have written is sent through a new channel, and the descriptor behind which it is
//! waiting is the receiver's; another one that is sent from there waits behind the sender's
//! ([`channel`]). Their texts for debugging say where to look first; should a later version of
//! ipc-channel say nothing there, all descriptors are tried, so that nothing depends on these
//! texts but speed. With the numbers known,
//! - the parent duplicates the sender's descriptor, and the worker inherits the duplicate;
//! - the worker makes a channel of its own and puts what it has inherited in the place of the
//!   sender's socket, by `dup3`. ipc-channel keeps nothing of a socket but its number, and only
//!   the owner of a sender closes it or changes what is behind that number. Here that is
//!   [`Sender`], and nobody else.
//!
//! ipc-channel asserts much of what should be an error. What it would panic of is looked for
//! before ([`prepare`], [`Receiver::try_recv`]), and what is left is caught: no panic of its
//! becomes the text of an error.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use ipc_channel::platform::OsIpcSender;
use ipc_channel::{IpcError, TryRecvError};
use pool_core::failed;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// A number that nobody can guess, as bytes, which stay together when they are encoded.
pub(crate) type Nonce = [u8; 16];

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The worker's [`pool_core::PROTOCOL_VERSION`].
    pub(crate) version: u32,
    /// The worker's process identifier, as it sees it.
    pub(crate) pid: u32,
    /// The nonce that the parent put into the environment.
    pub(crate) nonce: Nonce,
    /// The worker's [`pool_core::build_identity`].
    pub(crate) identity: u128,
}

/// A new channel for hellos, of which both descriptors are known.
///
/// # Errors
/// When the system is out of descriptors.
pub(crate) fn channel() -> io::Result<(Sender, Receiver)> {
    let (sender, receiver) = patiently(ipc::channel)?;
    let mut sender = Sender {
        ipc: sender,
        number: -1,
    };
    let mut receiver = Receiver {
        ipc: receiver,
        number: -1,
    };
    let mark: Nonce = sys::random()?;
    sender.send(Hello {
        version: 0,
        pid: 0,
        nonce: mark,
        identity: 0,
    })?;
    receiver.number = find(&format!("{:?}", receiver.ipc), &mark)?;
    sys::send_back(receiver.socket(), &mark)?;
    sender.number = find(&format!("{:?}", sender.ipc), &mark)?;
    // Nobody else is to find them there.
    sys::drop_message(receiver.socket())?;
    sys::drop_message(sender.socket())?;
    Ok((sender, receiver))
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

/// The sending side of a channel.
#[derive(Debug)]
pub(crate) struct Sender {
    ipc: IpcSender<Hello>,
    /// The descriptor of its socket, which `ipc` owns.
    number: RawFd,
}

impl Sender {
    /// In a worker, which is still alone: the sender of the channel of which it has inherited the
    /// sending socket. (Should ipc-channel be lost for want of a socket, then only to this worker:
    /// that is not worth what [`prepare`] costs.)
    pub(crate) fn over(socket: OwnedFd) -> io::Result<Self> {
        let (sender, _) = without_hook(channel)?;
        // SAFETY: the descriptor belongs to the sender, which is ours, and which takes one
        // connected socket of this type like another.
        unsafe { sys::replace(sender.number, socket)? };
        Ok(sender)
    }

    /// Sends a hello. It fits into the socket, so this does not wait.
    pub(crate) fn send(&self, hello: Hello) -> io::Result<()> {
        caught(|| self.ipc.send(hello))?.map_err(|error| match error {
            IpcError::Io(error) => named("sendmsg", error),
            error => io::Error::other(error.to_string()),
        })
    }

    /// A copy of the socket for a worker to inherit.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        sys::duplicate(self.socket())
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the sender has it open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }
}

/// The receiving side of a channel.
#[derive(Debug)]
pub(crate) struct Receiver {
    ipc: IpcReceiver<Hello>,
    /// The descriptor of its socket, which `ipc` owns.
    number: RawFd,
}

impl Receiver {
    /// The next hello, if it has arrived.
    ///
    /// # Errors
    /// When nobody can send one any more, or something else was sent.
    pub(crate) fn try_recv(&self) -> io::Result<Option<Hello>> {
        // ipc-channel believes the lengths in what it reads, and makes channels or mappings of
        // the descriptors that come along.
        sys::check_message(self.socket())?;
        match caught(|| self.ipc.try_recv())? {
            Ok(hello) => Ok(Some(hello)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::IpcError(IpcError::Io(error))) => Err(error),
            Err(TryRecvError::IpcError(IpcError::Disconnected)) => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Err(error) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                error.to_string(),
            )),
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the receiver has it open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }
}

/// The numbers in a text that can be those of descriptors.
fn numbers(text: &str) -> impl Iterator<Item = RawFd> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
}

/// To be called in a parent before [`channel`]: makes ipc-channel find out how large a message may
/// be. It does so once in a process, with a socket pair, and should it get none, then it panics,
/// and does so again whenever it is asked to send or receive anything: no pool could be built any
/// more.
///
/// So it is made to do it at a moment at which there are sockets: many are made and closed just
/// before, by a thread that has a table of descriptors of its own, so that nobody else uses up
/// what the limit of open files leaves.
///
/// # Errors
/// When there are none; the next call tries again.
pub(crate) fn prepare() -> io::Result<()> {
    /// Other processes take from the system's limit of open files at the same time.
    const SPARE_PAIRS: usize = 16;
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    if IS_DONE.load(Ordering::Acquire) {
        return Ok(());
    }
    thread::Builder::new()
        .name("procpool-channel".into())
        .spawn(|| {
            // Where a sandbox forbids that, it is done among the others.
            let _ = sys::own_descriptors();
            patiently(|| {
                let pairs = (0..SPARE_PAIRS).map(|_| UnixStream::pair());
                pairs.collect::<io::Result<Vec<_>>>().map(drop)
            })?;
            caught(OsIpcSender::get_max_fragment_size)
        })?
        .join()
        .unwrap_or_else(|_| Err(unusable()))?;
    IS_DONE.store(true, Ordering::Release);
    Ok(())
}

/// In a process that is alone in its hook for panics: calls what may panic without a word.
fn without_hook<T>(f: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = f();
    std::panic::set_hook(hook);
    result
}

/// Tries to get sockets a few times more if it fails for what others may give back, each time
/// after they had a chance to.
fn patiently<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const TRIES: u32 = 3;
    for _ in 1..TRIES {
        match f() {
            Err(error) if is_passing(&error) => thread::yield_now(),
            done => return done.map_err(|error| named("socketpair", error)),
        }
    }
    f().map_err(|error| named("socketpair", error))
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::NFILE, Errno::MFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// Calls ipc-channel, which asserts much of what it should answer as an error.
fn caught<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    // What `f` leaves behind when it panics is thread-local and empty.
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| unusable())
}

fn unusable() -> io::Error {
    io::Error::other(
        "ipc-channel got no socket at its first use and cannot be used in this process any more",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::{Hello, Receiver, Sender, numbers, prepare};

    fn channel() -> (Sender, Receiver) {
        prepare().expect("sockets");
        super::channel().expect("sockets")
    }

    fn hello() -> Hello {
        Hello {
            version: 1,
            pid: 300,
            nonce: [7; 16],
            identity: 4,
        }
    }

    /// Otherwise all descriptors are looked at for each worker.
    #[test]
    fn the_sockets_are_where_their_texts_say() {
        let (sender, receiver) = channel();
        for (text, number) in [
            (format!("{:?}", sender.ipc), sender.number),
            (format!("{:?}", receiver.ipc), receiver.number),
        ] {
            assert_eq!(numbers(&text).next(), Some(number), "{text}");
        }
    }

    #[test]
    fn a_socket_is_found_among_all_descriptors() {
        let (sender, receiver) = channel();
        let mark = crate::sys::random().expect("numbers");
        sender
            .send(Hello {
                nonce: mark,
                ..hello()
            })
            .expect("room");
        let has_it = |&number: &i32| crate::sys::has_message(number, &mark);
        let mut all = 0..crate::sys::most_descriptors();
        assert_eq!(all.find(has_it), Some(receiver.number));
        assert_eq!(all.find(has_it), None);
    }

    #[test]
    fn an_inherited_socket_takes_the_place_of_the_senders() {
        let (sender, receiver) = channel();
        let inherited = sender.duplicate().expect("a descriptor");
        assert!(inherited.as_raw_fd() > 2);
        drop(sender);
        assert_eq!(receiver.try_recv().expect("it is open"), None);
        let sender = Sender::over(inherited).expect("sockets");
        sender.send(hello()).expect("room");
        assert_eq!(receiver.try_recv().expect("a hello"), Some(hello()));
        assert_eq!(receiver.try_recv().expect("it is open"), None);
        drop(sender);
        receiver.try_recv().expect_err("nobody can send any more");
    }

    #[test]
    fn descriptors_are_not_taken() {
        let (sender, receiver) = channel();
        let bytes = [&22_u64.to_ne_bytes()[..], &6_u64.to_ne_bytes(), &[0; 6]].concat();
        let mut space = [MaybeUninit::uninit(); 64];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let nothing = io::stdout();
        let descriptors = [nothing.as_fd()];
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let bytes = [IoSlice::new(&bytes)];
        sendmsg(sender.socket(), &bytes, &mut along, SendFlags::NOSIGNAL).expect("room");
        let error = receiver.try_recv().expect_err("a descriptor");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
