//! The parent's connection to one worker.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pool_core::{Advance, ExitStatus, LaunchError, Link, PROTOCOL_VERSION, Reaped, Region};

use crate::folder::{Folder, remove_socket};
use crate::handover::Handover;
use crate::hello::{Heard, Hello, Inbox, Message};
use crate::identity::identity;
use crate::sys::Process;

/// See [`Link`].
#[derive(Debug)]
pub(crate) struct SpawnLink {
    process: Process,
    bell: PipeReader,
    region: Arc<Region>,
    /// What the bootstrap needs. `None` once the worker has the region.
    launching: Option<Launching>,
}

/// See [`SpawnLink::launching`].
#[derive(Debug)]
struct Launching {
    inbox: Inbox,
    handover: Handover,
    nonce: u128,
    /// Where the worker makes its socket.
    folder: Folder,
    /// The worker's last socket: in the folder, unless the worker had threads when it made it.
    socket: Option<PathBuf>,
}

/// How long a process may take to die after it has closed its doorbell, in the course of which a
/// process does little else than close descriptors.
const LAST_MOMENT: Duration = Duration::from_millis(20);

const HINT: &str = "call procpool::init() as the first line of main";

impl SpawnLink {
    pub(crate) fn new(
        process: Process,
        bell: PipeReader,
        region: Region,
        handover: Handover,
        nonce: u128,
        folder: Folder,
    ) -> Self {
        Self {
            process,
            bell,
            region: Arc::new(region),
            launching: Some(Launching {
                inbox: Inbox::default(),
                handover,
                nonce,
                folder,
                socket: None,
            }),
        }
    }
}

impl Link for SpawnLink {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn advance(&mut self) -> Result<Advance, LaunchError> {
        let Some(launching) = &mut self.launching else {
            return Ok(Advance::Reached);
        };
        loop {
            match launching.inbox.listen(&self.bell) {
                Ok(Heard::Nothing) => return Ok(Advance::Pending),
                Ok(Heard::Message(Message::Hello(hello))) => {
                    launching.answer(hello, &self.process)?;
                }
                Ok(Heard::Message(Message::Received)) => {
                    self.launching = None;
                    return Ok(Advance::Reached);
                }
                Ok(Heard::Message(Message::Failed(reason))) => {
                    return Err(LaunchError::new(reason));
                }
                Ok(Heard::Message(Message::MissingInit)) => {
                    return Err(LaunchError::new(format!(
                        "the worker process passed by procpool::init(): {HINT}"
                    ))
                    .from_missing_init());
                }
                Ok(Heard::Closed) => return Err(launching.closed(&self.process)),
                Err(error) => {
                    return Err(LaunchError::new("cannot hear a new worker").caused_by(error));
                }
            }
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn death(&self) -> Option<BorrowedFd<'_>> {
        Some(self.process.pidfd())
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn reap(&mut self) -> Reaped {
        let status = self.process.reap();
        if let Some(launching) = self.launching.take() {
            launching.clean_up(&self.bell);
        }
        Reaped::Exited(status)
    }
}

impl Drop for SpawnLink {
    fn drop(&mut self) {
        self.reap();
    }
}

impl Launching {
    /// Checks a hello and sends the region to whoever said it.
    fn answer(&mut self, hello: Hello, process: &Process) -> Result<(), LaunchError> {
        let Hello {
            version,
            pid,
            nonce,
            identity: theirs,
            server,
        } = hello;
        if version != PROTOCOL_VERSION {
            return Err(LaunchError::new(format!(
                "the worker speaks version {version} of the protocol, its parent version \
                 {PROTOCOL_VERSION}"
            )));
        }
        if pid != process.id() {
            return Err(LaunchError::new(format!(
                "the worker is process {} but takes itself for {pid}; a pool's workers must be \
                 in the process namespace of their parent",
                process.id()
            )));
        }
        if nonce != self.nonce {
            return Err(LaunchError::new("the worker answered with a wrong nonce"));
        }
        if theirs != identity() {
            return Err(LaunchError::new(
                "the worker is another build of the program than its parent",
            ));
        }
        self.socket = Some(PathBuf::from(&server));
        match self.handover.send(&server) {
            // The worker closed this server: it has died, or it has refused a stranger and is
            // about to say hello again. The doorbell will tell.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(LaunchError::new("cannot send a worker its memory").caused_by(error)),
            Ok(()) => Ok(()),
        }
    }

    /// Why the worker's doorbell is closed.
    fn closed(&self, process: &Process) -> LaunchError {
        let status = process.ended_within(LAST_MOMENT);
        if self.socket.is_some() {
            return match status {
                Some(status) => {
                    LaunchError::new(format!("the worker process {status} before it was set up"))
                }
                None => LaunchError::new("the worker closed its doorbell before it was set up"),
            };
        }
        match status {
            // A process that is killed may have been about to get there.
            Some(status @ (ExitStatus::Signal(_) | ExitStatus::Unknown | ExitStatus::Orphaned)) => {
                LaunchError::new(format!(
                    "the worker process {status} before it reached procpool::init()"
                ))
            }
            Some(status @ ExitStatus::Code(_)) => LaunchError::new(format!(
                "the worker process {status} before it reached procpool::init(): {HINT}"
            ))
            .from_missing_init(),
            None => LaunchError::new(format!(
                "the worker process closed its standard input before it reached \
                 procpool::init(): {HINT}"
            ))
            .from_missing_init(),
        }
    }

    /// Removes the files of a worker that is gone.
    fn clean_up(mut self, bell: &PipeReader) {
        // It may have said more than was heard.
        while let Ok(Heard::Message(message)) = self.inbox.listen(bell) {
            match message {
                Message::Hello(hello) => self.socket = Some(PathBuf::from(hello.server)),
                Message::Received => break,
                Message::Failed(_) | Message::MissingInit => {}
            }
        }
        if let Some(socket) = &self.socket {
            remove_socket(socket);
        }
        self.folder.sweep();
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}
