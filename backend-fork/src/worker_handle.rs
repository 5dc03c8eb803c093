//! The parent's connection to one forked worker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use procpool_core::{ExitStatus, LaunchError, Orphans, Readiness, Region, WorkerHandle, failed};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal,
};

use crate::connection::{Connection, is_dying};
use crate::hello::{Hello, HelloReader, NoHello};
use crate::socket::above;
use crate::sys;
use crate::wait::{self, NOW};

/// The parent's connection to one forked worker.
///
/// Until the server's hello has come, what can be read from the doorbell is believed: the worker
/// has no task by then, so nothing but this crate's code can have written it.
#[derive(Debug)]
pub struct ForkWorkerHandle {
    region: Arc<Region>,
    doorbell: OwnedFd,
    /// The launch's number in the connection.
    launch: u64,
    stage: Stage,
    /// When the doorbell was seen to be closed without a hello.
    closed: Option<Instant>,
    connection: Arc<Connection>,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for the hello.
    Launched(HelloReader),
    /// The worker has answered, by way of the server.
    Reached(Worker),
    /// The server was asked to reap it: from now on it may do so at any time, and kills the
    /// process group itself before.
    Reaping(Worker),
    /// The server was asked to kill and to reap whatever there is, or there is nothing.
    Over(Option<Worker>, ExitStatus),
}

/// A worker's process.
#[derive(Debug)]
struct Worker {
    pid: Pid,
    death: OwnedFd,
    /// What it has left to this process. The server takes no orphans.
    orphans: Orphans,
}

impl Worker {
    /// Reaps its orphans before the server is asked to reap itself, and kills them before that.
    fn reap_orphans(&mut self) {
        if wait::wait_for_death(&self.death, Some(&NOW)) {
            let _ = kill_process_group(self.pid, Signal::KILL);
            self.orphans.reap(self.pid);
        } else {
            self.orphans.give_up();
        }
    }

    /// The same once the server has died. Where this process takes orphans, the worker is one.
    fn reap_as_orphan(&mut self) {
        sys::kill_group_of(self.death.as_fd());
        let options = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let found = wait::reap(WaitId::PidFd(self.death.as_fd()), options);
        if found != Some(ExitStatus::Unknown) {
            self.orphans = Orphans::default();
        } else if !self.orphans.are_dying() {
            // It is somebody else's, or the server has reaped it, and its number may be another's.
            self.orphans.give_up();
        }
    }
}

impl ForkWorkerHandle {
    pub(crate) fn new(
        connection: Arc<Connection>,
        launch: u64,
        region: Region,
        doorbell: OwnedFd,
    ) -> Self {
        Self {
            region: Arc::new(region),
            doorbell,
            launch,
            stage: Stage::Launched(HelloReader::default()),
            closed: None,
            connection,
        }
    }

    fn worker(&self) -> Option<&Worker> {
        match &self.stage {
            Stage::Launched(_) | Stage::Over(None, _) => None,
            Stage::Reached(worker) | Stage::Reaping(worker) | Stage::Over(Some(worker), _) => {
                Some(worker)
            }
        }
    }

    /// Reads the doorbell until there is a hello. Otherwise, the doorbell says how far the launch
    /// is.
    fn read_hello(&mut self) -> Result<Result<Hello, Readiness>, LaunchError> {
        let Stage::Launched(reader) = &mut self.stage else {
            return Err(LaunchError::new("this launch was given up"));
        };
        let mut piece = [0; 64];
        loop {
            match rustix::io::read(&self.doorbell, &mut piece) {
                Ok(0) => {
                    let closed = *self.closed.get_or_insert_with(Instant::now);
                    return match self.connection.gone(closed) {
                        Poll::Ready(error) => Err(error),
                        Poll::Pending => Ok(Err(Readiness::HungUp)),
                    };
                }
                Ok(count) => match reader.feed(&piece[..count]) {
                    Ok(None) => {}
                    Ok(Some(hello)) => return Ok(Ok(hello)),
                    Err(NoHello) => {
                        return Err(LaunchError::new(
                            "something has written rubbish into a worker's doorbell",
                        ));
                    }
                },
                Err(Errno::AGAIN) => return Ok(Err(Readiness::Pending)),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(LaunchError::new("cannot read a worker's doorbell")
                        .caused_by(failed("read")(errno)));
                }
            }
        }
    }

    /// Gets hold of the process of which the server has said hello.
    fn take_hold(&self, Hello(outcome): Hello) -> Result<Worker, LaunchError> {
        let pid = outcome.map_err(|errno| {
            LaunchError::new("cannot fork a worker").caused_by(failed("fork")(errno))
        })?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.expect("a hello holds a positive number");
        let death = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
            LaunchError::new("cannot watch a worker's process")
                .caused_by(failed("pidfd_open")(errno))
        })?;
        let death = above(death).map_err(|errno| {
            LaunchError::new("cannot watch a worker's process").caused_by(errno)
        })?;
        // If the server is alive now, it was alive when the pidfd was opened, and so the process
        // was not reaped then and the number was the worker's.
        if !self.connection.is_open() {
            return Err(match self.connection.gone(Instant::now()) {
                Poll::Ready(error) => error,
                Poll::Pending => is_dying(),
            });
        }
        Ok(Worker {
            pid,
            death,
            orphans: Orphans::default(),
        })
    }

    /// Has the server kill and reap whatever there is, without waiting for an answer.
    fn give_up(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over(None, ExitStatus::Unknown));
        match stage {
            Stage::Launched(_) | Stage::Reached(_) | Stage::Reaping(_) => {
                self.connection.forget(self.launch);
            }
            Stage::Over(..) => self.stage = stage,
        }
    }
}

impl WorkerHandle for ForkWorkerHandle {
    fn region(&self) -> Arc<Region> {
        Arc::clone(&self.region)
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        if let Stage::Reached(_) = self.stage {
            return Ok(Readiness::Ready);
        }
        let worker = match self.read_hello() {
            Ok(Err(pending)) => return Ok(pending),
            Ok(Ok(hello)) => self.take_hold(hello),
            Err(error) => Err(error),
        };
        match worker {
            Ok(worker) => {
                self.stage = Stage::Reached(worker);
                self.connection.answered(self.launch);
                Ok(Readiness::Ready)
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(self.worker()?.pid.as_raw_pid().cast_unsigned())
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.worker()?.death.as_fd())
    }

    fn kill(&mut self) {
        match &self.stage {
            // Its process is not known here, but to the server.
            Stage::Launched(_) => self.give_up(),
            Stage::Reached(worker) => {
                // Once the server has died, its workers die by themselves, and somebody else may
                // have reaped this one: then the group's number may be another one's.
                if self.connection.is_open() {
                    let _ = kill_process_group(worker.pid, Signal::KILL);
                } else {
                    sys::kill_group_of(worker.death.as_fd());
                }
                let _ = pidfd_send_signal(&worker.death, Signal::KILL);
            }
            Stage::Reaping(_) | Stage::Over(..) => {}
        }
    }

    fn reap(&mut self) -> Poll<ExitStatus> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over(None, ExitStatus::Unknown));
        match stage {
            Stage::Launched(_) => {
                self.stage = stage;
                self.give_up();
                Poll::Ready(ExitStatus::Unknown)
            }
            Stage::Reached(mut worker) => {
                if self.connection.is_open() {
                    worker.reap_orphans();
                } else {
                    worker.orphans.give_up();
                }
                self.stage = Stage::Reaping(worker);
                self.reap()
            }
            Stage::Reaping(mut worker) => match self.connection.reap(self.launch) {
                Poll::Pending => {
                    self.stage = Stage::Reaping(worker);
                    Poll::Pending
                }
                // The server closes its sockets a moment before its workers have another parent.
                Poll::Ready(ExitStatus::Orphaned) if !self.connection.is_server_dead() => {
                    self.stage = Stage::Reaping(worker);
                    Poll::Pending
                }
                Poll::Ready(status) => {
                    if status == ExitStatus::Orphaned {
                        // The server did not live to do it.
                        worker.reap_as_orphan();
                    }
                    self.stage = Stage::Over(Some(worker), status);
                    self.reap()
                }
            },
            Stage::Over(mut worker, status) => {
                let are_over = worker
                    .as_mut()
                    .is_none_or(|worker| worker.orphans.reap(worker.pid));
                self.stage = Stage::Over(worker, status);
                if are_over {
                    Poll::Ready(status)
                } else {
                    Poll::Pending
                }
            }
        }
    }
}

impl Drop for ForkWorkerHandle {
    fn drop(&mut self) {
        if !self.connection.is_inherited() {
            self.give_up();
        }
    }
}
