//! The handle of a fork server.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use procpool_core::LaunchError;

use crate::failover::ServerFailover;
use crate::launcher::ForkLauncher;
use crate::server::{Kept, Serve};
use crate::start_error::StartError;
use crate::threads;

/// See [`ForkServer::set_global`].
static GLOBAL: OnceLock<ForkServer> = OnceLock::new();

/// A fork server: a process that is a copy of this one as it was at the start, from which workers
/// are forked.
///
/// It has a *standby*, a sleeping copy of itself, which takes its place if somebody kills it: then
/// the workers of that moment are lost, and their tasks with them, but the pools go on.
///
/// It is a handle, and clones stand for the same server. The server lives as long as one of them or
/// a pool that uses it; then it ends, which the last owner's drop waits for (some milliseconds; at
/// most a second).
///
/// What is open at the start (a pipe, a port, the lock of a file) it has open as well, and so have
/// its workers, as long as it lives, whatever this process closes: open such things later, or use
/// [`start_keeping`](Self::start_keeping).
///
/// It belongs to the process that started it: start it after daemonizing, and not before `fork`s of
/// your own whose copies are to use it.
#[derive(Debug, Clone)]
pub struct ForkServer {
    failover: Arc<ServerFailover>,
}

impl ForkServer {
    /// Starts a fork server. To be called early in `main`, before anything starts a thread: the
    /// logger, the runtime, another pool.
    ///
    /// What standard output and the C library's streams have buffered is written out before.
    ///
    /// # Errors
    /// When this process has more than one thread ([`StartError::threads`]), or the system refuses
    /// a process or descriptors.
    pub fn start() -> Result<Self, StartError> {
        Self::start_serving(procpool_core::worker::serve)
    }

    /// Like [`start`](Self::start), but of what is open now, the server and its workers keep only
    /// `fds` and the standard streams: the peer of a pipe sees its end when this process closes it,
    /// and a port is free again.
    ///
    /// A task must not use what is closed: a file in a `static` that was opened before, say. Its
    /// number may mean something else in the worker.
    ///
    /// ```no_run
    /// # mod procpool { pub use procpool_fork::*; }
    /// use procpool::ForkServer;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// // The workers have nothing of the listener.
    /// let server = ForkServer::start_keeping(&[])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_keeping(fds: &[BorrowedFd<'_>]) -> Result<Self, StartError> {
        let keep = Kept {
            fds: Some(numbers(fds)),
            ..Kept::default()
        };
        Self::start_alone(procpool_core::worker::serve, keep)
    }

    /// Like [`start`](Self::start), with something else for the workers to do.
    #[doc(hidden)]
    pub fn start_serving(serve: Serve) -> Result<Self, StartError> {
        Self::start_alone(serve, Kept::default())
    }

    pub(crate) fn start_alone(serve: Serve, keep: Kept) -> Result<Self, StartError> {
        // Those of lazy maps that were dropped are on their way out.
        procpool_core::wait_for_feeders(Duration::from_secs(1));
        match threads::others() {
            // SAFETY: this thread is the only one.
            Ok(others) if others.is_empty() => unsafe { Self::start_anyhow(serve, keep) },
            Ok(others) => Err(StartError::of_threads(&others)),
            Err(error) => Err(StartError::of_reason(format!(
                "cannot count the threads of this process in /proc/self/task: {error}"
            ))),
        }
    }

    /// Like [`start`](Self::start), however many threads there are.
    ///
    /// # Errors
    /// When the system refuses a process or descriptors.
    ///
    /// # Safety
    /// The server has a copy of this process's memory as it is at some moment during the call, but
    /// none of the other threads. The caller answers for it that no other thread holds, at that
    /// moment, a lock which the server or a worker will ever take, or has half-way changed what
    /// they will ever read: in the program, in its libraries, in those written in other languages.
    /// (The C library's allocator looks after itself.)
    pub unsafe fn start_unchecked() -> Result<Self, StartError> {
        // SAFETY: handed on to the caller.
        unsafe { Self::start_anyhow(procpool_core::worker::serve, Kept::default()) }
    }

    /// # Safety
    /// As for [`start_unchecked`](Self::start_unchecked).
    pub(crate) unsafe fn start_anyhow(serve: Serve, keep: Kept) -> Result<Self, StartError> {
        // SAFETY: handed on to the caller.
        let failover = unsafe { ServerFailover::start(serve, keep)? };
        Ok(Self {
            failover: Arc::new(failover),
        })
    }

    /// The server's process identifier: of the process that serves now, if one has died before.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.failover.pid().as_raw_pid().cast_unsigned()
    }

    /// Connects one more pool.
    ///
    /// # Errors
    /// When the server and its standby have died, the system refuses descriptors, or this handle
    /// was inherited from the process that this one was forked from.
    pub fn connect(&self) -> Result<ForkLauncher, LaunchError> {
        ForkLauncher::new(Arc::clone(&self.failover))
    }

    /// Makes this the server that [`global`](Self::global) answers, for good.
    ///
    /// # Errors
    /// The server comes back if there is one already.
    pub fn set_global(self) -> Result<(), Self> {
        GLOBAL.set(self)
    }

    /// The server that [`set_global`](Self::set_global) was given in this very process. A process
    /// that was forked from that one, a worker for instance, gets `None`.
    #[must_use]
    pub fn global() -> Option<&'static Self> {
        GLOBAL
            .get()
            .filter(|server| !server.failover.is_inherited())
    }
}

/// The numbers of these descriptors.
pub(crate) fn numbers(fds: &[BorrowedFd<'_>]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}
