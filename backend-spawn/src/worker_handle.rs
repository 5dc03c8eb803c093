//! The parent's connection to one worker.

use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use procpool_core::{
    ExitStatus, LaunchError, PROTOCOL_VERSION, Readiness, Region, WorkerHandle, build_identity,
    shared_object,
};

use crate::doorbell::{Heard, Inbox, Message};
use crate::hello::{Hello, Nonce, Receiver};
use crate::remedy::Remedy;
use crate::sys::Process;

/// See [`WorkerHandle`].
#[derive(Debug)]
pub(crate) struct SpawnWorkerHandle {
    process: Process,
    doorbell: PipeReader,
    region: Arc<Region>,
    /// What to do if it does not come to `init`.
    remedy: Arc<Remedy>,
    /// What the bootstrap needs. `None` once the worker is ready.
    launching: Option<Launching>,
}

/// See [`SpawnWorkerHandle::launching`].
#[derive(Debug)]
struct Launching {
    inbox: Inbox,
    /// Where the worker says hello.
    hello: Receiver,
    nonce: Nonce,
    /// When its doorbell was seen to be closed.
    closed: Option<Instant>,
}

/// How long a process may take to die after it has closed its doorbell, in the course of which a
/// process does little else than close descriptors: microseconds, unless others need the processor.
const LAST_MOMENT: Duration = Duration::from_millis(100);

impl SpawnWorkerHandle {
    pub(crate) fn new(
        process: Process,
        doorbell: PipeReader,
        region: Region,
        hello: Receiver,
        nonce: Nonce,
        remedy: Arc<Remedy>,
    ) -> Self {
        Self {
            process,
            doorbell,
            region: Arc::new(region),
            remedy,
            launching: Some(Launching {
                inbox: Inbox::default(),
                hello,
                nonce,
                closed: None,
            }),
        }
    }
}

impl WorkerHandle for SpawnWorkerHandle {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        let Some(launching) = &mut self.launching else {
            return Ok(Readiness::Ready);
        };
        match launching.inbox.listen(&self.doorbell) {
            Ok(Heard::Nothing) => Ok(Readiness::Pending),
            Ok(Heard::Message(Message::Ready)) => {
                launching.check_hello(&self.process)?;
                self.launching = None;
                Ok(Readiness::Ready)
            }
            Ok(Heard::Message(Message::Failed(reason))) => Err(LaunchError::new(reason)),
            Ok(Heard::Message(Message::MissingInit)) => Err(LaunchError::new(format!(
                "the worker process passed by procpool::init(): {}",
                self.remedy
            ))
            .from_missing_init()),
            Ok(Heard::Closed) => launching.closed(&self.process, &self.remedy),
            Err(error) => Err(LaunchError::new("cannot hear a new worker").caused_by(error)),
        }
    }

    fn why_silent(&self) -> Option<String> {
        Some(format!(
            "perhaps it does not come to procpool::init(): {}",
            self.remedy
        ))
    }

    fn pid(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.process.death())
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn reap(&mut self) -> Poll<ExitStatus> {
        let Some(status) = self.process.reap() else {
            return Poll::Pending;
        };
        self.launching = None;
        Poll::Ready(status)
    }
}

impl Launching {
    /// Takes the hello of a worker that says that it is ready, and checks it.
    fn check_hello(&self, process: &Process) -> Result<(), LaunchError> {
        let hello = self.hello.try_recv().map_err(|error| {
            LaunchError::new("cannot understand a new worker's hello").caused_by(error)
        })?;
        let Some(hello) = hello else {
            return Err(LaunchError::new("the worker did not say hello"));
        };
        let Hello {
            version,
            pid,
            nonce,
            identity: theirs,
        } = hello;
        if version != PROTOCOL_VERSION {
            return Err(LaunchError::new(format!(
                "the worker speaks version {version} of the protocol, its parent version \
                 {PROTOCOL_VERSION}"
            )));
        }
        // (0: it does not know. The nonce is what it has from this parent alone.)
        if pid != process.id() && pid != 0 {
            return Err(LaunchError::new(format!(
                "the worker is process {} but takes itself for {pid}; a pool's workers must be \
                 in the process namespace of their parent",
                process.id()
            )));
        }
        if nonce != self.nonce {
            return Err(LaunchError::new("the worker answered with a wrong nonce"));
        }
        if theirs != build_identity() {
            return Err(LaunchError::new(match shared_object() {
                None => "the worker is another build of the program than its parent".to_owned(),
                Some(path) => format!(
                    "the worker has not the build of {} that its parent has: was the file \
                     replaced?",
                    path.display()
                ),
            }));
        }
        Ok(())
    }

    /// The worker's doorbell is closed.
    ///
    /// # Errors
    /// When it is known why: the process is dead, or had time enough for that.
    fn closed(&mut self, process: &Process, remedy: &Remedy) -> Result<Readiness, LaunchError> {
        let closed = *self.closed.get_or_insert_with(Instant::now);
        let status = process.ended();
        if status.is_none() && closed.elapsed() < LAST_MOMENT {
            return Ok(Readiness::HungUp);
        }
        Err(self.why_closed(status, remedy))
    }

    /// Why the doorbell is closed of a process that has ended, or has not.
    fn why_closed(&self, status: Option<ExitStatus>, remedy: &Remedy) -> LaunchError {
        if let Ok(Some(_)) = self.hello.try_recv() {
            return match status {
                Some(status) => {
                    LaunchError::new(format!("the worker process {status} before it was ready"))
                }
                None => LaunchError::new("the worker closed its doorbell before it was ready"),
            };
        }
        match status {
            Some(status @ ExitStatus::Code(_)) => LaunchError::new(format!(
                "the worker process {status} before it reached procpool::init(): {remedy}"
            ))
            .from_missing_init(),
            // A process that is killed may have been about to get there.
            Some(status) => LaunchError::new(format!(
                "the worker process {status} before it reached procpool::init()"
            )),
            None => LaunchError::new(format!(
                "the worker process closed its standard input before it reached \
                 procpool::init(): {remedy}"
            ))
            .from_missing_init(),
        }
    }
}
