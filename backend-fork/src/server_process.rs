//! A process of the fork server, as the parent sees it.

use std::os::fd::{AsFd, OwnedFd};

use procpool_core::{ExitStatus, poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, pidfd_send_signal};

use crate::message::{Announcement, CONNECT, SERVE};
use crate::socket::{Received, Socket};
use crate::wait::{self, NOW};

/// How long a server may take to kill and reap its workers before it is killed itself. It takes
/// milliseconds, unless somebody has stopped it.
const GRACE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A process of the fork server: the one that serves, or its standby. A child of this process.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// Over which pools are connected.
    main: Socket,
    pid: Pid,
    /// Its pidfd.
    death: OwnedFd,
}

impl ServerProcess {
    pub(crate) fn new(main: Socket, pid: Pid, death: OwnedFd) -> Self {
        Self { main, pid, death }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Has a standby serve from now on.
    pub(crate) fn call(&self) -> Result<(), Errno> {
        self.main.send(SERVE, &[])
    }

    /// Hands it its end of a new pool's connection.
    pub(crate) fn connect(&self, end: &Socket) -> Result<(), Errno> {
        self.main.send(CONNECT, &[end.as_fd()])
    }

    /// The next news of its standby: a process, or why there is none. `None`: no news.
    pub(crate) fn hear(&self) -> Option<Result<Self, Errno>> {
        loop {
            let Received::Message { bytes, descriptors } = self.main.receive() else {
                return None;
            };
            let Some(Announcement(outcome)) = Announcement::decode(&bytes) else {
                continue;
            };
            return Some(outcome.and_then(|pid| {
                // The standby sees it if there is no room for its socket here, and leaves.
                let [main, death] =
                    <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| Errno::MFILE)?;
                Ok(Self::new(Socket::from(main), pid, death))
            }));
        }
    }

    /// Whether it is dead or has closed its main socket, as it does only when it ends. (What it
    /// was just forking when it died may still hold a copy of that.)
    pub(crate) fn is_over(&self) -> bool {
        let mut sources = [
            // Nothing is asked for: a hang-up is always reported.
            PollFd::new(&self.main, PollFlags::empty()),
            PollFd::new(&self.death, PollFlags::IN),
        ];
        poll(&mut sources, Some(&NOW)).is_ok_and(|ready| ready > 0)
    }

    /// Whether it is dead: its children have another parent, and its status is there.
    pub(crate) fn is_dead(&self) -> bool {
        wait::wait_for_death(&self.death, Some(&NOW))
    }

    /// Lets it end in good order, and sees to it that it does. Waits for that: a
    /// second, and as long again where something keeps it from dying.
    pub(crate) fn end(&self) {
        // Not merely closed: a process forked from this one may hold a copy.
        self.main.shut_down();
        if !wait::wait_for_death(&self.death, Some(&GRACE)) {
            self.kill();
            wait::wait_for_death(&self.death, Some(&GRACE));
        }
    }

    /// Kills it. Waits for nothing.
    pub(crate) fn kill(&self) {
        // It ends without its socket, should this process have dropped its privileges
        // and not be allowed to kill it.
        self.main.shut_down();
        // It may be dead. It is a child that is not reaped, so its number is its own.
        if pidfd_send_signal(&self.death, Signal::KILL).is_err() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// How it ended, once it is dead; it stays to be reaped. `Unknown`: somebody else has done so.
    pub(crate) fn exit_status(&self) -> ExitStatus {
        let options = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        wait::reap(WaitId::PidFd(self.death.as_fd()), options).unwrap_or(ExitStatus::Unknown)
    }

    /// Reaps it if it is dead.
    pub(crate) fn reap(&self) {
        wait::reap(WaitId::PidFd(self.death.as_fd()), WaitIdOptions::NOHANG);
    }
}
