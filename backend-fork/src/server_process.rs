//! The fork server's process, as the parent sees it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use pool_core::{ExitStatus, LaunchError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, setpgid,
};

use crate::message::CONNECT;
use crate::server::{self, Serve};
use crate::socket::Socket;
use crate::start_error::StartError;
use crate::sys;
use crate::wait;

/// How long a server may take to kill and reap its workers before it is killed itself. It takes
/// milliseconds, unless somebody has stopped it.
const GRACE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The fork server's process. Shared by the handles, connections and links that need it; the last
/// one to be dropped ends it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// Over which pools are connected.
    main: Socket,
    pid: Pid,
    /// Readable when it has died.
    death: OwnedFd,
    /// The process that this server belongs to.
    owner: Pid,
}

impl ServerProcess {
    /// Forks the server. Its workers will run `serve`.
    ///
    /// # Safety
    /// Either this process has one thread, or the caller answers for it that the server and the
    /// workers take no lock and read no memory that another thread was at.
    pub(crate) unsafe fn start(serve: Serve) -> Result<Self, StartError> {
        let refused = |errno| StartError::of_system("cannot start the fork server", errno);
        let owner = getpid();
        let parent = pidfd_open(owner, PidfdFlags::empty()).map_err(refused)?;
        let (ours, theirs) = Socket::pair().map_err(refused)?;
        sys::flush_streams();
        // No handler of the program's runs in the server before it has taken them off.
        let blocked = sys::block_signals();
        // SAFETY: handed on to the caller. What the copy must not do is listed at `sys::fork`; it
        // goes straight into `run`, which does not return.
        let Some(pid) = (unsafe { sys::fork() }).map_err(refused)? else {
            drop(ours);
            server::run(parent, theirs, serve)
        };
        drop(blocked);
        // The server does so itself as well, but perhaps later than the next Ctrl-C.
        let _ = setpgid(Some(pid), Some(pid));
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(death) => Ok(Self {
                main: ours,
                pid,
                death,
                owner,
            }),
            Err(errno) => {
                // It ends by itself as soon as both sockets are closed.
                drop((ours, theirs));
                wait::reap(WaitId::Pid(pid), WaitIdOptions::empty());
                Err(refused(errno))
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether this value came into this process by a fork: then it stands for nothing here.
    pub(crate) fn is_inherited(&self) -> bool {
        getpid() != self.owner
    }

    /// Hands the server its end of a new pool's connection.
    pub(crate) fn connect(&self, end: Socket) -> Result<(), LaunchError> {
        if self.is_inherited() {
            return Err(LaunchError::new(
                "this fork server belongs to the process that this one was forked from; start one \
                 of your own",
            ));
        }
        match self.main.send(CONNECT, &[end.as_fd()]) {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(self.gone()),
            Err(Errno::AGAIN) => Err(LaunchError::new(
                "the fork server does not answer; has somebody stopped it?",
            )),
            Err(errno) => Err(LaunchError::new("cannot reach the fork server").caused_by(errno)),
        }
    }

    /// How it ended. `None`: it is alive.
    pub(crate) fn fate(&self) -> Option<ExitStatus> {
        let options = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        wait::reap(WaitId::PidFd(self.death.as_fd()), options)
    }

    /// Why a connection to it was closed.
    pub(crate) fn gone(&self) -> LaunchError {
        let pid = self.pid.as_raw_pid();
        // The connection may be closed without the server being gone, but not this socket.
        if !self.main.is_hung_up() {
            return LaunchError::new(format!(
                "the fork server, process {pid}, has no room for this pool's connection; raise the \
                 limit of open files (ulimit -n) before starting it"
            ));
        }
        // The kernel closes the sockets of a dying process a moment before it says that it is dead.
        wait_readable(&self.death, Some(&GRACE));
        let fate = self.fate().unwrap_or(ExitStatus::Unknown);
        LaunchError::new(format!(
            "the fork server, process {pid}, {fate}; it is not started again, because that is sound \
             only while this program has one thread"
        ))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        // Not merely closed: a process forked from this one may hold a copy.
        self.main.shut_down();
        if !wait_readable(&self.death, Some(&GRACE)) {
            let _ = pidfd_send_signal(&self.death, Signal::KILL);
        }
        wait::reap(WaitId::PidFd(self.death.as_fd()), WaitIdOptions::empty());
    }
}

/// Waits until a process has died. `false`: it has not.
fn wait_readable(death: &OwnedFd, timeout: Option<&Timespec>) -> bool {
    loop {
        let mut source = [PollFd::new(death, PollFlags::IN)];
        match poll(&mut source, timeout) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
