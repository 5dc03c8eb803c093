//! The region, on its way from the parent to the worker over ipc-channel.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::mpsc;
use std::sync::{Arc, PoisonError, RwLock};
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

/// The parent's side.
pub(crate) struct Handover {
    nonce: u128,
    memory: IpcSharedMemory,
}

/// Held for writing while a descriptor exists that a new process would inherit, and for reading
/// while one is started: `IpcSharedMemory` duplicates its descriptor to send it, and forgets to
/// mark the duplicate. (Processes that the rest of the program starts are out of its reach.)
pub(crate) static INHERITABLE: RwLock<()> = RwLock::new(());

/// The descriptors that ipc-channel needs at the same time, in the parent: the memory's, its
/// duplicate's, the connection's, and two that it opens at its first message.
const DESCRIPTORS: usize = 5;

/// How long the parent waits for what takes it microseconds.
const PATIENCE: Duration = Duration::from_millis(20);

/// For the thread that sends.
const STACK_BYTES: usize = 256 * 1024;

impl Handover {
    /// Makes a zero-filled region, and what it takes to send it.
    pub(crate) fn new(bytes: usize, nonce: u128) -> Result<(Self, Region), LaunchError> {
        // ipc-channel panics where there is none.
        sys::spare_descriptors(DESCRIPTORS)
            .and_then(|()| sys::spare_memory(bytes))
            .map_err(cannot_share)?;
        let memory = guard(|| IpcSharedMemory::from_byte(0, bytes))
            .map_err(|panic| cannot_share(io::Error::other(panic)))?;
        let mut handover = Self { nonce, memory };
        let (address, bytes) = whole(&mut handover.memory);
        // SAFETY: `whole` gives all of one shared mapping; the reference it was made from is
        // gone, and nothing below makes another.
        let region = unsafe {
            // `from_byte` has written to all of it; a ring is rarely used to its end.
            sys::release_pages(address, bytes).map_err(cannot_share)?;
            Region::adopt(address, bytes).map_err(cannot_share)?
        };
        Ok((handover, region))
    }

    /// Sends the region to the worker that waits at this server. Does not wait for it: where many
    /// strangers want to connect to the same server, that happens behind the caller's back, when it
    /// can. Nothing tells how it went then, but the worker.
    ///
    /// # Errors
    /// The server may be gone: the worker has died, or has accepted somebody else.
    pub(crate) fn send(self: &Arc<Self>, server: &str) -> io::Result<()> {
        sys::spare_descriptors(DESCRIPTORS)?;
        let (handover, server) = (self.clone(), server.to_owned());
        let (done, sent) = mpsc::channel();
        // ipc-channel connects with a socket that blocks, and so it would here as long as the
        // server's queue is full.
        thread::Builder::new()
            .name("procpool-handover".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // Whoever asked may not wait any more.
                let _ = done.send(handover.send_now(server));
            })?;
        sent.recv_timeout(PATIENCE).unwrap_or(Ok(()))
    }

    fn send_now(&self, server: String) -> io::Result<()> {
        let setup = SetupToSend {
            nonce: self.nonce,
            memory: &self.memory,
        };
        probe(&server)?;
        guard(|| {
            let sender = IpcSender::connect(server)?;
            let _alone = INHERITABLE.write().unwrap_or_else(PoisonError::into_inner);
            // A worker that dies meanwhile is an error, and no SIGPIPE: that is for streams.
            sender.send(setup).map_err(|error| match error {
                IpcError::Io(error) => error,
                error => io::Error::other(error.to_string()),
            })
        })
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }
}

/// Finds out whether somebody listens at a server, who does not notice: a connection of another
/// type than the server's is refused, but in another way than where nobody is.
///
/// ipc-channel loses a descriptor when it cannot connect, so it should not have to try. A worker
/// that is killed closes its server some time before it is dead.
fn probe(server: &str) -> io::Result<()> {
    match UnixStream::connect(server) {
        Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the nonce nor the memory's bytes, which `IpcSharedMemory` would print.
        f.debug_struct("Handover").finish_non_exhaustive()
    }
}

/// The worker's side: maps the region, and closes ipc-channel's mapping and descriptor.
pub(crate) fn adopt(mut memory: IpcSharedMemory) -> io::Result<Region> {
    let (address, bytes) = whole(&mut memory);
    // SAFETY: `whole` gives all of one shared mapping; the reference it was made from is gone,
    // and the mapping itself ends with this function.
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
    use ipc_channel::ipc::IpcOneShotServer;

    use super::probe;

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
