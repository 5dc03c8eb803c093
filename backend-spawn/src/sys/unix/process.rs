//! A child process.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal as NixSignal};

use procpool_core::{ExitStatus, Orphans, failed, poll};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};

use crate::sys::Watch;

/// How long somebody who drops a process that was killed waits for its death, which takes
/// microseconds as a rule.
const LAST_MOMENT: Duration = Duration::from_millis(20);

/// A child process of this one that leads a process group.
///
/// Dropping it kills and reaps it. If it does not die, it is reaped when another one comes or goes.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    watch: Arc<Watch>,
    /// How it ended, once it is reaped; from then on its number may be somebody else's.
    ended: Option<ExitStatus>,
    /// What it has left to this process.
    orphans: Orphans,
}

impl Process {
    /// Executes a program as the leader of a process group of its own, with all signals at their
    /// defaults and none blocked. Returns when that is done.
    ///
    /// The program gets each of `streams` under the number that is given with it, and `inherited`
    /// under their own numbers; no descriptor among them is one of the standard three here. That
    /// is never a `fork`, which would copy the page tables of all of this process's memory, and no
    /// other process can inherit anything of it meanwhile.
    ///
    /// # Errors
    /// When the program cannot be executed, or the system is out of processes or descriptors;
    /// nothing runs then.
    pub(crate) fn start(
        program: &CStr,
        arguments: &[CString],
        environment: &[CString],
        streams: &[(BorrowedFd<'_>, RawFd)],
        inherited: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        ask_the_undead();
        let mut actions = PosixSpawnFileActions::init()?;
        for (stream, number) in streams {
            actions.add_dup2(stream.as_raw_fd(), *number)?;
        }
        for descriptor in inherited {
            // The same number twice means: let it be inherited.
            actions.add_dup2(descriptor.as_raw_fd(), descriptor.as_raw_fd())?;
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
        let mut defaults = SigSet::all();
        // Of these two nobody may say so.
        defaults.remove(NixSignal::SIGKILL);
        defaults.remove(NixSignal::SIGSTOP);
        attributes.set_sigdefault(&defaults)?;
        attributes.set_sigmask(&SigSet::empty())?;
        let place = inherited.first().map(|it| fcntl_dupfd_cloexec(it, 3));
        if let Some(Err(errno @ (Errno::MFILE | Errno::NFILE))) = place {
            // Without a descriptor, nobody would hear of its death, and the zombie would stay.
            return Err(failed(Watch::CALL)(errno));
        }
        let pid = posix_spawn(program, &actions, &attributes, arguments, environment)?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or(Errno::SRCH)?;
        drop(place);
        match Watch::over(pid) {
            Ok(watch) => Ok(Self {
                pid,
                watch: Arc::new(watch),
                ended: None,
                orphans: Orphans::default(),
            }),
            Err(error) => {
                // It is ours and was not reaped, unless this program ignores SIGCHLD; its group
                // has its number, and nobody else can have it as long as a member lives.
                let _ = kill_process_group(pid, Signal::KILL);
                leave_behind(Undead::Unwatched(pid));
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// A descriptor that is readable when it has died.
    pub(crate) fn death(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        // The system may be about to reap it, because this program ignores SIGCHLD.
        let is_gone = || (!self.has_number()).then_some(ExitStatus::Unknown);
        self.peek().or_else(is_gone)
    }

    /// How it ended, if it has. It keeps its number until [`reap`](Self::reap).
    fn peek(&self) -> Option<ExitStatus> {
        self.ended
            .or_else(|| self.wait(WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT))
    }

    /// Kills it and its process group, if it has not been reaped.
    pub(crate) fn kill(&self) {
        if self.ended.is_some() {
            return;
        }
        // A process that somebody else has reaped has no number any more, and then the group of
        // this number may be another. (That happens where a program ignores SIGCHLD.)
        if self.has_number() {
            // An error means that nobody is left to kill.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
        self.watch.kill();
    }

    /// Kills what is left of it and its group, and takes its status, if it is dead. `None`: it is
    /// not, or is being traced, so that its status is the tracer's for now; or somebody that was
    /// killed with it and is this process's child by now is still dying.
    pub(crate) fn reap(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // Before the number is given free, and with it the group's.
            self.kill();
            let ended = self.peek()?;
            if !self.has_number() {
                // It may be somebody else's.
                self.orphans.give_up();
            }
            // It is one of the group, and so this may reap it as well.
            self.orphans.reap(self.pid);
            let _ = self.wait(WaitIdOptions::NOHANG);
            self.ended = Some(ended);
            return self.ended.filter(|_| self.orphans.are_over());
        }
        self.ended.filter(|_| self.orphans.reap(self.pid))
    }

    /// Whether its number stands for it: nobody has reaped it.
    fn has_number(&self) -> bool {
        let options = WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        wait(self.watch.child(), options) != Err(Errno::CHILD)
    }

    /// `None`: it lives, and the options say not to wait.
    fn wait(&self, options: WaitIdOptions) -> Option<ExitStatus> {
        match wait(self.watch.child(), options) {
            Ok(status) => status,
            // Somebody else has reaped it: a `wait` for any child in the program, or the system,
            // because the program ignores SIGCHLD.
            Err(Errno::CHILD) => self.watch.how_it_ended(),
            // A sandbox. The descriptor still says whether it is dead.
            Err(_) => {
                let mut death = [PollFd::new(&*self.watch, PollFlags::IN)];
                let is_dead = poll(&mut death, Some(&Timespec::default())) != Ok(0);
                is_dead.then_some(ExitStatus::Unknown)
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
            // One that dies is dead by then, and nobody else would reap it soon.
            let timeout = Timespec::try_from(LAST_MOMENT).ok();
            let mut death = [PollFd::new(&*self.watch, PollFlags::IN)];
            // Whatever this answers, the next line looks for itself.
            let _ = poll(&mut death, timeout.as_ref());
        }
        if self.reap().is_none() && self.ended.is_none() {
            leave_behind(Undead::Watched(self.watch.clone()));
        }
    }
}

/// A child that was killed and nobody has reaped: it does not die, or its status is a tracer's.
#[derive(Debug)]
enum Undead {
    Watched(Arc<Watch>),
    /// Without a descriptor.
    Unwatched(Pid),
}

impl Undead {
    /// Whether it is reaped now.
    fn is_over(&self) -> bool {
        let child = match self {
            Self::Watched(watch) => watch.child(),
            Self::Unwatched(pid) => WaitId::Pid(*pid),
        };
        // An error means that somebody else has reaped it.
        !matches!(wait(child, WaitIdOptions::NOHANG), Ok(None))
    }
}

/// Those that are left of pools that have ended. They are asked whenever a worker comes or goes.
static UNDEAD: Mutex<Vec<Undead>> = Mutex::new(Vec::new());

fn leave_behind(undead: Undead) {
    let mut all = UNDEAD.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(undead);
    all.retain(|undead| !undead.is_over());
}

fn ask_the_undead() {
    let mut all = UNDEAD.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|undead| !undead.is_over());
}

/// How a child ended. `None`: it lives, and the options say not to wait.
fn wait(child: WaitId<'_>, options: WaitIdOptions) -> Result<Option<ExitStatus>, Errno> {
    let options = options | WaitIdOptions::EXITED;
    let status = retry_on_intr(|| waitid(child.clone(), options))?;
    Ok(status.as_ref().map(exit_status))
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    if let Some(code) = status.exit_status() {
        ExitStatus::Code(code)
    } else if let Some(signal) = status.terminating_signal() {
        ExitStatus::Signal(signal)
    } else {
        ExitStatus::Unknown
    }
}
