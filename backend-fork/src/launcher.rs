//! The launcher of forked workers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use procpool_core::{
    LaunchError, LaunchSpec, Launcher, Region, WorkerHandle, failed, off_standard,
};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::connection::{Connection, make_notifier};
use crate::failover::ServerFailover;
use crate::message::WorkerStdio;
use crate::worker_handle::ForkWorkerHandle;

/// Starts workers by asking a fork server to fork them: one pool's connection to it, see
/// [`ForkServer::connect`](crate::ForkServer::connect).
///
/// Unlike what [`Launcher`] allows for, no thread is tied to the workers: their parent is the
/// server.
///
/// The [`notifier`](Launcher::notifier) is readable only while a [`reap`](WorkerHandle::reap) that
/// was answered with `Pending` has an answer, or the server has died with one outstanding. So it
/// can stay in a level-triggered poller for good.
#[derive(Debug)]
pub struct ForkLauncher {
    notifier: Arc<OwnedFd>,
    /// To the server that served at the last launch. The links of earlier ones have theirs.
    connection: Arc<Connection>,
    /// Since when no launch has reached a server.
    refused_since: Option<Instant>,
}

impl ForkLauncher {
    pub(crate) fn new(failover: Arc<ServerFailover>) -> Result<Self, LaunchError> {
        let notifier = Arc::new(make_notifier()?);
        let connection = Connection::open(failover, Arc::clone(&notifier))?;
        Ok(Self {
            notifier,
            connection: Arc::new(connection),
            refused_since: None,
        })
    }
}

impl Launcher for ForkLauncher {
    fn backend(&self) -> &'static str {
        "fork"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        if !self.connection.is_open() {
            self.connection = Arc::new(self.connection.reopen()?);
        }
        let name = spec.name();
        let (region, memory) = Region::create(spec.region_bytes()).map_err(|error| {
            LaunchError::new(format!("cannot make the memory of {name}")).caused_by(error)
        })?;
        spec.prepare(&region);
        let (doorbell, ringer) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|errno| {
                LaunchError::new(format!("cannot make the doorbell of {name}")).caused_by(failed(
                    "pipe2",
                )(
                    errno
                ))
            })?;
        let (doorbell, ringer) = off_standard(doorbell)
            .and_then(|doorbell| Ok((doorbell, off_standard(ringer)?)))
            .map_err(|error| {
                LaunchError::new(format!("cannot make the doorbell of {name}")).caused_by(error)
            })?;
        let tie = duplicate(spec.tie()).map_err(|error| {
            LaunchError::new(format!("cannot tie {name} to this process")).caused_by(error)
        })?;
        let (stdio, mut given) = (WorkerStdio::of(spec), vec![ringer, memory, tie]);
        for outlet in [spec.stdout(), spec.stderr(), spec.events()]
            .into_iter()
            .flatten()
        {
            let copied = duplicate(outlet);
            given.push(copied.map_err(|error| {
                LaunchError::new(format!("cannot give {name} its output")).caused_by(error)
            })?);
        }
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        let launch = self.connection.launch(name, stdio, given, since)?;
        self.refused_since = None;
        let connection = Arc::clone(&self.connection);
        Ok(Box::new(ForkWorkerHandle::new(
            connection, launch, region, doorbell,
        )))
    }

    fn notifier(&self) -> Option<BorrowedFd<'_>> {
        Some(self.notifier.as_fd())
    }
}

/// A copy of a descriptor, to be sent to the fork server.
fn duplicate(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fcntl_dupfd_cloexec(descriptor, 3).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))
}
