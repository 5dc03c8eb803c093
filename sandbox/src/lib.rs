//! What a process gives up for good before it touches what it does not trust.
//!
//! A worker that parses files from anywhere should be able to do nothing but compute: open no file,
//! reach no network, signal or look into no other process, start no program. [`Sandbox::strict`]
//! does that in one line, by two parts of Linux that need no rights and no set-up: Landlock, for
//! what can be reached, and seccomp, for which system calls there are.
//!
//! ```no_run
//! use procpool_sandbox::Sandbox;
//!
//! // In a pool: in its initializer.
//! Sandbox::strict().enter()?;
//! assert!(std::fs::read("/etc/passwd").is_err());
//! # Ok::<(), procpool_sandbox::SandboxError>(())
//! ```

mod calls;
mod error;
mod files;
mod namespaces;
mod refusals;
mod shorten;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::calls::Filters;
pub use crate::error::SandboxError;
use crate::files::Enforced;

/// What remains allowed to a process that [enters](Self::enter) it.
///
/// It is a value: it can be sent to workers, as the argument of an initializer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "it does nothing before it is entered"]
pub struct Sandbox {
    reads: BTreeSet<PathBuf>,
    writes: BTreeSet<PathBuf>,
    executes: BTreeSet<PathBuf>,
    network: bool,
    syscalls: BTreeSet<String>,
    user_namespace: bool,
    best_effort: bool,
    refusal: Refusal,
}

/// What becomes of a process that makes a system call which is not on its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// It is killed (`SIGSYS`): code that does so is not what it should be.
    #[default]
    Kill,
    /// The call fails (`EPERM`): for libraries that try what they can do without.
    Fail,
}

impl Sandbox {
    /// Computing, and what is open already: nothing else.
    ///
    /// - No new rights by executing something (`no_new_privs`).
    /// - No file can be opened, made or removed (the code sees an error, and goes on); no TCP port
    ///   connected to or bound; no signal sent to, and no abstract socket used of, another process.
    /// - System calls are those that computing needs: memory, threads, clocks, and what can be done
    ///   with open descriptors. There is none to start a program or a process, to make sockets but
    ///   pairs, to look into other processes, to mount, to make namespaces or keys, or that is
    ///   known for holes in kernels (`io_uring`, `bpf`, `userfaultfd`, `perf_event_open`).
    ///
    /// What can be *seen* of files without opening them (that they are there, their sizes and
    /// dates) remains: Landlock has no right for that.
    pub fn strict() -> Self {
        Self {
            reads: BTreeSet::new(),
            writes: BTreeSet::new(),
            executes: BTreeSet::new(),
            network: false,
            syscalls: BTreeSet::new(),
            user_namespace: false,
            best_effort: false,
            refusal: Refusal::Kill,
        }
    }

    /// Lets files be read: this one, or all in this folder.
    pub fn allow_read(mut self, path: impl AsRef<Path>) -> Self {
        self.reads.insert(files::absolute(path.as_ref().to_owned()));
        self
    }

    /// Lets files be read, made, written and removed: this one, or all in this folder.
    pub fn allow_write(mut self, path: impl AsRef<Path>) -> Self {
        self.writes
            .insert(files::absolute(path.as_ref().to_owned()));
        self
    }

    /// Lets a program be executed, or all in this folder. What they load must be
    /// [readable](Self::allow_read), and they are as confined as this process.
    pub fn allow_exec(mut self, path: impl AsRef<Path>) -> Self {
        self.executes
            .insert(files::absolute(path.as_ref().to_owned()));
        self
    }

    /// Lets sockets be made, connected, and listened on.
    pub fn allow_network(mut self) -> Self {
        self.network = true;
        self
    }

    /// Lets system calls of these names be made, whatever their arguments.
    pub fn allow_syscalls<I: AsRef<str>>(mut self, names: impl IntoIterator<Item = I>) -> Self {
        let names = names.into_iter().map(|name| name.as_ref().to_owned());
        self.syscalls.extend(names);
        self
    }

    /// Moves the process into a user namespace of its own, and into namespaces for the network
    /// (unless that is [allowed](Self::allow_network)), shared memory of System V and host names.
    ///
    /// It is a second wall: there it has no right over anything, also where it belongs to root, and
    /// a network in which there is nothing. Not every system lets every user have them; then this
    /// is an error.
    pub fn user_namespace(mut self) -> Self {
        self.user_namespace = true;
        self
    }

    /// What this kernel lacks is left out, in place of an error. Where it has no Landlock at all
    /// and no path is allowed, the filter of system calls lets no file be opened.
    pub fn best_effort(mut self) -> Self {
        self.best_effort = true;
        self
    }

    /// What becomes of a process that makes a call which is not allowed: without this, it is
    /// killed.
    pub fn on_refusal(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }

    /// What is allowed, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let list = |paths: &BTreeSet<PathBuf>| match paths.is_empty() {
            true => "nothing".to_owned(),
            false => {
                let shown: Vec<_> = paths.iter().map(|it| it.display().to_string()).collect();
                shown.join(", ")
            }
        };
        let lines = [
            ("reads", list(&self.reads)),
            ("writes", list(&self.writes)),
            ("executes", list(&self.executes)),
            (
                "network",
                if self.network { "yes" } else { "no" }.to_owned(),
            ),
            ("more calls", {
                let names: Vec<_> = self.syscalls.iter().map(String::as_str).collect();
                match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(", "),
                }
            }),
            (
                "user namespace",
                match self.user_namespace {
                    true => "its own",
                    false => "that of the program",
                }
                .to_owned(),
            ),
            (
                "another call",
                match self.refusal {
                    Refusal::Kill => "kills the process (SIGSYS)",
                    Refusal::Fail => "fails (EPERM)",
                }
                .to_owned(),
            ),
        ];
        for (what, value) in lines {
            let _ = writeln!(text, "{what}: {value}");
        }
        text
    }

    /// Confines this process, for good.
    ///
    /// # Errors
    /// When the process has several threads, a path cannot be opened, a system call has no such
    /// name, or the kernel lacks something. The process may be confined in part then, and should
    /// end.
    pub fn enter(&self) -> Result<(), SandboxError> {
        let prepared = self.prepare_with(false)?;
        let files = prepared.reach_nothing()?;
        prepared.call_nothing(files)
    }

    /// Does once, for many processes, what takes time: each of them
    /// [enters](PreparedSandbox::enter_telling) it then, and tells of what is refused.
    ///
    /// # Errors
    /// Those of [`enter`](Self::enter), but for what a process learns there alone: that it has
    /// threads, and that it may have no namespace.
    pub fn prepare(&self) -> Result<PreparedSandbox, SandboxError> {
        // A program that is executed has no handler, and would be killed.
        let can_go_on = self.executes.is_empty() || self.refusal == Refusal::Kill;
        files::check(self)?;
        self.prepare_with(refusals::CAN_TELL && can_go_on)
    }

    /// Checks what does not depend on the machine: for a sandbox that is sent to another one.
    ///
    /// # Errors
    /// [`UnknownSyscall`](SandboxError::UnknownSyscall), when a name that it allows is that of no
    /// system call.
    pub fn check(&self) -> Result<(), SandboxError> {
        match (self.syscalls.iter()).find(|name| calls::number(name).is_none()) {
            Some(name) => Err(SandboxError::UnknownSyscall { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn prepare_with(&self, tells: bool) -> Result<PreparedSandbox, SandboxError> {
        self.check()?;
        // The pools of a program tend to have the same.
        static LAST: Mutex<Option<PreparedSandbox>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |it: &&PreparedSandbox| it.tells == tells && it.sandbox == *self;
        if let Some(last) = last.as_ref().filter(is_same) {
            return Ok(last.clone());
        }
        let prepared = PreparedSandbox {
            sandbox: self.clone(),
            filters: Filters::new(self, tells)?,
            tells,
        };
        Ok(last.insert(prepared).clone())
    }

    /// Whether a process in it can have others.
    #[must_use]
    pub fn allows_processes(&self) -> bool {
        !self.executes.is_empty()
    }
}

/// A [`Sandbox`] that is ready to be entered. It can be sent to the processes that are to enter it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedSandbox {
    sandbox: Sandbox,
    filters: Filters,
    /// Refusals are told of.
    tells: bool,
}

impl PreparedSandbox {
    /// Confines this process, for good, as [`Sandbox::enter`] does. Each system call that is
    /// refused from then on is told of: `tell` is called with its number, of which [`syscall_name`]
    /// is the name. Not told of is what a handler of signals does that has `SIGSYS` blocked, nor
    /// what is refused to other programs, where some may be executed.
    ///
    /// # Errors
    /// Those of [`Sandbox::enter`].
    ///
    /// # Safety
    /// `tell` is called in a handler of signals, by any thread. It must do no more than such a one
    /// may: it takes no lock and no memory.
    #[expect(
        unsafe_code,
        reason = "the caller answers for what it does in a handler"
    )]
    pub unsafe fn enter_telling(&self, tell: fn(u32)) -> Result<(), SandboxError> {
        let files = self.reach_nothing()?;
        if self.tells {
            // SAFETY: handed on to the caller.
            let told = unsafe { refusals::tell(tell, self.sandbox.refusal) };
            told.map_err(|errno| SandboxError::Refused {
                step: "sigaction",
                reason: errno.to_string(),
            })?;
        }
        self.call_nothing(files)
    }

    /// The first part: files, ports, sockets and processes.
    fn reach_nothing(&self) -> Result<Enforced, SandboxError> {
        has_one_thread()?;
        let sandbox = &self.sandbox;
        if sandbox.user_namespace {
            namespaces::enter(sandbox.network, sandbox.best_effort)?;
        }
        files::enter(sandbox)
    }

    /// The second part: system calls.
    fn call_nothing(&self, files: Enforced) -> Result<(), SandboxError> {
        self.filters.put_up(files)?;
        // It is entered once by most; a second one takes more away, and that is not told.
        let _ = CURRENT.set(self.sandbox.clone());
        Ok(())
    }
}

/// Only this thread enters a sandbox: there must be no other.
fn has_one_thread() -> Result<(), SandboxError> {
    // It unshares nothing, and fails where there are others.
    if unshare(CloneFlags::CLONE_THREAD).is_ok() {
        return Ok(());
    }
    // It may also be that this process is not allowed to ask.
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => Ok(()),
        Ok(threads) => Err(SandboxError::Threads { threads }),
        Err(error) => Err(SandboxError::Refused {
            step: "/proc/self/task, which says how many threads there are",
            reason: error.to_string(),
        }),
    }
}

static CURRENT: OnceLock<Sandbox> = OnceLock::new();

/// The sandbox that this process is in, if it is in one.
#[must_use]
pub fn current() -> Option<&'static Sandbox> {
    CURRENT.get()
}

/// The name of the system call of this number, if this processor has one.
#[must_use]
pub fn syscall_name(number: u32) -> Option<&'static str> {
    calls::name(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of which a test's process has several.
    #[test]
    fn a_process_with_threads_is_not_confined_in_part() {
        let refused = Sandbox::strict().enter().expect_err("there are several");
        assert!(matches!(refused, SandboxError::Threads { threads: 2.. }));
        assert_eq!(current(), None);
    }
}
