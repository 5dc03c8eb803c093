//! A descriptor as an argument or a result.

#[cfg(unix)]
use std::fs::File;
use std::io;
use std::sync::Arc;

use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outgoing::Outgoing;
use super::{arrived, inbox};
use crate::codec::handle_context::{self, HANDLE_TYPE_NAME};
use crate::sys;
use crate::sys::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// An open file, socket, pipe or anything else with a file descriptor, as an argument or a result.
///
/// The process that gets it has a descriptor of its own for the same open file (`SCM_RIGHTS`), as
/// a child has of what it inherits: both share the position and the status flags. It is
/// close-on-exec.
///
/// ```
/// # use procpool_core as procpool;
/// use std::fs::File;
/// use std::io::{self, Read, Write};
/// use procpool::{Fd, Pool, RemoteError, SerialPool};
///
/// /// Runs in a worker, with one end of the pipe.
/// fn say((out, text): (Fd, String)) -> Result<(), RemoteError> {
///     let mut out = File::from(out.into_owned());
///     Ok(out.write_all(text.as_bytes())?)
/// }
///
/// let pool = SerialPool::new();
/// let (mut hear, out) = io::pipe()?;
/// pool.apply(say, (Fd::from(out), "hello".to_string()))??;
/// // All writers are closed: the argument's and the worker's.
/// let mut heard = String::new();
/// hear.read_to_string(&mut heard)?;
/// assert_eq!(heard, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `cargo run --example prefork` is a server that passes its connections to workers.
///
/// # What becomes of the descriptor
/// An argument is dropped once it is encoded, and the pool keeps a duplicate until the item has its
/// outcome. So a lost item is tried again with the same open file, in whatever state the lost
/// worker has left it. The worker's copy is the task's, to drop or to keep. A result's is the
/// caller's. What is never decoded (a cancelled item, a result that nobody reads) is closed. If a
/// worker was sent it already, behind the item that it runs, it is closed after that item.
///
/// The other end of a connection sees the end when all copies are closed: the worker's, the pool's
/// (when it has heard of the outcome), and any that the program has kept. `shutdown` ends the
/// connection at once.
///
/// # Where it can go
/// Into arguments and results, alone or inside of other values, at most 128 in each. An argument of
/// an initializer may have some: each worker gets duplicates. Not into a
/// [`Broadcast`](crate::Broadcast) or a context, which is decoded any number of times, nor into
/// another serde format, nor to an executor of another machine: each of these is an error. So is a
/// descriptor that the kernel passes to nobody, such as that of an `io_uring`.
#[derive(Debug)]
pub struct Fd(OwnedFd);

impl Fd {
    /// The descriptor itself: `File::from(fd.into_owned())`, `TcpStream::from(fd.into_owned())`.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// Another descriptor of the same open file.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl From<Fd> for OwnedFd {
    fn from(fd: Fd) -> Self {
        fd.0
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// From and to what has a descriptor.
#[cfg(unix)]
macro_rules! convert {
    ($($type:ty),*) => {$(
        impl From<$type> for Fd {
            fn from(it: $type) -> Self {
                Self(it.into())
            }
        }
    )*};
}

#[cfg(unix)]
convert!(
    OwnedFd,
    File,
    io::PipeReader,
    io::PipeWriter,
    std::net::TcpStream,
    std::net::TcpListener,
    std::net::UdpSocket,
    std::os::unix::net::UnixStream,
    std::os::unix::net::UnixListener,
    std::os::unix::net::UnixDatagram,
    std::process::ChildStdin,
    std::process::ChildStdout,
    std::process::ChildStderr
);

const NOT_TO_ANYWHERE: &str = "an Fd is a descriptor of this process, and goes only to a pool's \
     workers and back, in arguments and results";

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(HANDLE_TYPE_NAME, &Leaving(&self.0))
    }
}

struct Leaving<'a>(&'a OwnedFd);

impl Serialize for Leaving<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refused = |error| S::Error::custom(format_args!("a descriptor is refused: {error}"));
        let outgoing = Outgoing {
            // Never the same twice, and not to be guessed by another worker.
            key: (sys::random_id().map_err(refused)?, 0),
            file: Arc::new(self.0.try_clone().map_err(refused)?),
        };
        let id = outgoing.key.0;
        if !handle_context::leave(Arc::new(outgoing)) {
            return Err(S::Error::custom(NOT_TO_ANYWHERE));
        }
        id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Arriving;

        impl<'de> Visitor<'de> for Arriving {
            type Value = Fd;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an Fd of a pool")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Fd, D::Error> {
                let arrival =
                    handle_context::arrival().ok_or_else(|| D::Error::custom(NOT_TO_ANYWHERE))?;
                let key = (u128::deserialize(deserializer)?, 0);
                let descriptor = match arrival.from_parent {
                    true => inbox::claim(key),
                    false => arrived::claim(key),
                };
                descriptor.map(Fd).map_err(D::Error::custom)
            }
        }

        deserializer.deserialize_newtype_struct(HANDLE_TYPE_NAME, Arriving)
    }
}
