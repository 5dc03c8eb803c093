//! The region, on its way from the parent to the worker over ipc-channel.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcSender, IpcSharedMemory};
use pool_core::{LaunchError, Region};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys;

/// What the worker gets at its server.
#[derive(Deserialize, Serialize)]
pub(crate) struct Setup {
    /// The one of the summons: whoever knows it is the parent.
    pub(crate) nonce: u128,
    pub(crate) memory: IpcSharedMemory,
}

/// [`Setup`] as the parent sends it, which keeps the memory in case the worker was reached by
/// somebody else first.
#[derive(Serialize)]
struct SetupToSend<'a> {
    nonce: u128,
    memory: &'a IpcSharedMemory,
}

/// The parent's side: a thread that has the memory, and waits to be told where to send it.
///
/// The thread has a table of descriptors of its own, for ipc-channel is careless with them. It
/// loses a socket whenever it cannot connect: a worker that is killed at the wrong moment would cost one
/// descriptor for good. It duplicates the memory's descriptor to send it, and forgets to mark the
/// duplicate: processes that are started meanwhile would inherit it. And it connects with a socket
/// that blocks: the parent would wait as long as the server's queue is full of strangers. What that
/// thread has nobody else has, and when it ends it is gone.
pub(crate) struct Handover {
    /// Without it the thread ends.
    orders: Option<Sender<Order>>,
    /// Without a sender when the thread has let go of the memory.
    alive: Receiver<()>,
}

/// Where to send the memory, and who wants to know how it went, and may not wait any more.
struct Order {
    server: String,
    done: Sender<io::Result<()>>,
}

/// Held for writing while a descriptor exists that a new process would inherit, and for reading
/// while one is started, where a sandbox does not let a thread have its own table.
pub(crate) static INHERITABLE: RwLock<()> = RwLock::new(());

/// The descriptors that ipc-channel needs at the same time, in the parent: the memory's, its
/// duplicate's, the connection's, and two that it opens at its first message.
const DESCRIPTORS: usize = 5;

/// How long the parent waits for what takes it microseconds.
const PATIENCE: Duration = Duration::from_millis(20);

/// For the thread.
const STACK_BYTES: usize = 256 * 1024;

impl Handover {
    /// Makes a zero-filled region, and what it takes to send it.
    pub(crate) fn new(bytes: usize, nonce: u128) -> Result<(Self, Region), LaunchError> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let (made, region) = mpsc::channel();
        let (lives, alive) = mpsc::channel::<()>();
        let started = thread::Builder::new()
            .name("procpool-handover".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _lives = lives;
                // Where that is forbidden, ipc-channel is as careless as it is.
                let _ = sys::own_descriptors();
                match make(bytes) {
                    Ok((memory, region)) => {
                        let _ = made.send(Ok(region));
                        for order in inbox {
                            let _ = order.done.send(send(&memory, nonce, &order.server));
                        }
                    }
                    Err(error) => {
                        let _ = made.send(Err(error));
                    }
                }
            });
        started.map_err(cannot_share)?;
        let region = region
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that makes it is gone")));
        let orders = Some(orders);
        Ok((Self { orders, alive }, region.map_err(cannot_share)?))
    }

    /// Sends the region to the worker that waits at this server. Does not wait for it: where many
    /// strangers want to connect to the same server, that happens behind the caller's back, when it
    /// can. Nothing tells how it went then, but the worker.
    ///
    /// # Errors
    /// The server may be gone: the worker has died, or has accepted somebody else.
    pub(crate) fn send(&self, server: &str) -> io::Result<()> {
        let (done, sent) = mpsc::channel();
        let server = server.to_owned();
        let order = Order { server, done };
        let orders = self.orders.as_ref();
        let gone = || io::Error::other("the thread that sends is gone");
        let sent_on = orders.map(|orders| orders.send(order));
        sent_on.and_then(Result::ok).ok_or_else(gone)?;
        sent.recv_timeout(PATIENCE).unwrap_or(Ok(()))
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        drop(self.orders.take());
        // So that what was made for the handover is gone with it, unless the thread is stuck.
        let _ = self.alive.recv_timeout(PATIENCE);
    }
}

/// Makes the memory, and maps it once more.
fn make(bytes: usize) -> io::Result<(IpcSharedMemory, Region)> {
    // ipc-channel panics where there is none.
    sys::spare_descriptors(DESCRIPTORS)?;
    sys::spare_memory(bytes)?;
    let mut memory = guard(|| IpcSharedMemory::from_byte(0, bytes)).map_err(io::Error::other)?;
    let (address, bytes) = whole(&mut memory);
    // SAFETY: `whole` gives all of one shared mapping; the reference it was made from is gone, and
    // nothing below makes another. This mapping is for the parent's side alone.
    let region = unsafe {
        // `from_byte` has written to all of it; a ring is rarely used to its end.
        sys::release_pages(address, bytes)?;
        Region::adopt(address, bytes)?
    };
    Ok((memory, region))
}

fn send(memory: &IpcSharedMemory, nonce: u128, server: &str) -> io::Result<()> {
    sys::spare_descriptors(DESCRIPTORS)?;
    probe(server)?;
    guard(|| {
        let sender = IpcSender::connect(server.to_owned())?;
        let _alone = INHERITABLE.write().unwrap_or_else(PoisonError::into_inner);
        // A worker that dies meanwhile is an error, and no SIGPIPE: that is for streams.
        let setup = SetupToSend { nonce, memory };
        sender.send(setup).map_err(|error| match error {
            IpcError::Io(error) => error,
            error => io::Error::other(error.to_string()),
        })
    })
    .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// Finds out whether somebody listens at a server, who does not notice: a connection of another
/// type than the server's is refused, but in another way than where nobody is.
///
/// Where ipc-channel's lost descriptors are not gone with the thread, it should not have to try. A
/// worker that is killed closes its server some time before it is dead.
fn probe(server: &str) -> io::Result<()> {
    match UnixStream::connect(server) {
        Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the orders, which tell nothing.
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}

/// The worker's side: maps the region, and closes ipc-channel's mapping and descriptor.
pub(crate) fn adopt(mut memory: IpcSharedMemory) -> io::Result<Region> {
    let (address, bytes) = whole(&mut memory);
    // SAFETY: `whole` gives all of one shared mapping; the reference it was made from is gone,
    // and the mapping itself ends with this function. Only the parent has made and mapped it, too.
    unsafe { Region::adopt(address, bytes) }
}

/// Where the memory is mapped, and how long it is.
fn whole(memory: &mut IpcSharedMemory) -> (NonNull<u8>, usize) {
    // SAFETY: the reference is asked for its place and length and then gone; nothing is read or
    // written through it, so that it does not matter what the other process does meanwhile.
    let memory = unsafe { memory.deref_mut() };
    (NonNull::from(&mut *memory).cast(), memory.len())
}

/// Calls ipc-channel, which asserts much of what it should answer as an error.
///
/// # Errors
/// That it panicked, and the panic's message.
pub(crate) fn guard<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    // What `f` leaves behind when it panics is dropped or, in ipc-channel, thread-local and empty.
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        format!("ipc-channel panicked: {}", message.unwrap_or("no message"))
    })
}

fn cannot_share(error: io::Error) -> LaunchError {
    LaunchError::new("cannot make the memory that a worker shares with its parent").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use ipc_channel::ipc::IpcOneShotServer;

    use super::{Handover, probe};

    /// How many sockets this process has open.
    fn sockets() -> usize {
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("there is a /proc");
        let targets = descriptors
            .flatten()
            .map(|it| std::fs::read_link(it.path()));
        targets
            .filter(|target| {
                let target = target.as_ref().map(|target| target.display().to_string());
                target.is_ok_and(|target| target.starts_with("socket:"))
            })
            .count()
    }

    #[test]
    fn a_connection_that_fails_costs_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("socket");
        // The probe takes this for a server, but ipc-channel cannot connect to it.
        let _socket = UnixDatagram::bind(&path).expect("a socket");
        let path = path.to_str().expect("it is text");
        let before = sockets();
        for _ in 0..100 {
            let (handover, _region) = Handover::new(4096, 7).expect("some memory");
            handover.send(path).expect_err("a datagram is no message");
        }
        // Other tests have sockets, too, but not so many.
        let after = sockets();
        assert!(after < before + 50, "{before} sockets became {after}");
    }

    #[test]
    fn a_probe_tells_whether_somebody_listens() {
        let (server, name) = IpcOneShotServer::<u32>::new().expect("a server");
        // As often as one likes, for the server does not take it for a connection.
        for _ in 0..100 {
            probe(&name).expect("somebody listens");
        }
        // As when a process is killed: the file stays.
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let left = elsewhere.path().join("socket");
        std::fs::rename(&name, &left).expect("both are in the temporary folder");
        let left = left.to_str().expect("it is text");
        probe(left).expect("somebody still listens");
        drop(server);
        let error = probe(left).expect_err("nobody does");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(probe(&name).is_err());
    }
}
