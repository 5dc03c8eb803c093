//! How a process that was called becomes a worker.

use std::ffi::OsStr;
use std::io::{self, PipeWriter, Write};

use ipc_channel::ipc::IpcOneShotServer;
use pool_core::{PROTOCOL_VERSION, Region};

use crate::folder::{Folder, SOCKET_BYTES};
use crate::handover::{Setup, adopt, guard};
use crate::hello::{Hello, Message, SERVER_BYTES};
use crate::identity::identity;
use crate::summons::Secret;
use crate::sys;

/// How many strangers a worker refuses before it gives up.
const TRIES: usize = 16;

/// The descriptors that ipc-channel needs at the same time, in the worker: the server's, the
/// connection's, the memory's, and two that it opens at its first message.
const DESCRIPTORS: usize = 5;

/// Says hello, waits for the parent and returns the region that it sent.
///
/// # Errors
/// What to tell the parent.
pub(crate) fn bootstrap(
    bell: &mut PipeWriter,
    secret: &Secret,
    folder: &Folder,
) -> Result<Region, String> {
    // ipc-channel panics in cases that are checked below as far as they can be foreseen, and
    // when a stranger sends rubbish. Nobody should read of that.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let region = meet(bell, secret, folder);
    std::panic::set_hook(hook);
    let region = region?;
    say(bell, &Message::Received).map_err(|error| format!("cannot ring the doorbell: {error}"))?;
    Ok(region)
}

fn meet(bell: &mut PipeWriter, secret: &Secret, folder: &Folder) -> Result<Region, String> {
    sys::spare_descriptors(DESCRIPTORS)
        .map_err(|error| format!("a worker has too few descriptors left to start: {error}"))?;
    check(folder)?;
    // Also where the folder stays empty: making it finds out what ipc-channel would panic of.
    folder.create().map_err(|error| {
        format!(
            "a worker cannot create its bootstrap socket in the temporary folder {}: {error}; \
             set TMPDIR to a folder that can be written",
            folder.parent().display()
        )
    })?;
    let setup = wait(bell, secret, folder);
    folder.remove();
    adopt(setup?.memory).map_err(|error| format!("a worker cannot map its region: {error}"))
}

/// Waits for the parent, refusing others.
fn wait(bell: &mut PipeWriter, secret: &Secret, folder: &Folder) -> Result<Setup, String> {
    let mut refused = String::new();
    for _ in 0..TRIES {
        let (server, name) = open(folder)?;
        let hello = Message::Hello(Hello {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            nonce: secret.nonce,
            identity: identity(),
            server: name,
        });
        say(bell, &hello).map_err(|error| format!("cannot ring the doorbell: {error}"))?;
        // As long as it takes: the parent has the deadline, and this process dies with it.
        refused = match guard(|| server.accept()) {
            Ok(Ok((_connection, setup))) if setup.nonce == secret.nonce => return Ok(setup),
            Ok(Ok(_)) => "it sent a wrong nonce".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
    }
    Err(format!(
        "a worker has refused {TRIES} connections, the last one because: {refused}"
    ))
}

/// Opens a server, and gives its name.
fn open(folder: &Folder) -> Result<(IpcOneShotServer<Setup>, String), String> {
    guard(|| {
        // ipc-channel does not let itself be told otherwise where to open it.
        let path = folder.path().as_os_str();
        sys::with_variable("TMPDIR", path, IpcOneShotServer::new)
    })
    .and_then(|opened| opened.map_err(|error| error.to_string()))
    .map_err(|error| format!("a worker cannot open its bootstrap socket: {error}"))
}

/// Whether a socket in this folder can have a name.
fn check(folder: &Folder) -> Result<(), String> {
    let path: &OsStr = folder.path().as_os_str();
    let bytes = path.len() + SOCKET_BYTES;
    if path.to_str().is_none() {
        return Err(format!(
            "a worker cannot create its bootstrap socket in the temporary folder {}, whose name \
             is not UTF-8; set TMPDIR to another",
            folder.parent().display()
        ));
    }
    if bytes > SERVER_BYTES {
        return Err(format!(
            "a worker cannot create its bootstrap socket in the temporary folder {}, whose name \
             is {} bytes too long for one; set TMPDIR to another",
            folder.parent().display(),
            bytes - SERVER_BYTES
        ));
    }
    Ok(())
}

/// Writes a message in one piece.
pub(crate) fn say(bell: &mut PipeWriter, message: &Message) -> io::Result<()> {
    bell.write_all(&message.encode())
}
