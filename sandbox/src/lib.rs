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

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use crate::error::SandboxError;

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
    /// - No file can be opened, made or removed; no TCP port connected to or bound; no signal sent
    ///   to, and no abstract socket used of, another process.
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

    /// What this kernel lacks is left out, in place of an error.
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
        let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
        match threads {
            Ok(1) => {}
            Ok(threads) => return Err(SandboxError::Threads { threads }),
            Err(error) => {
                return Err(SandboxError::Refused {
                    step: "/proc/self/task, which says how many threads there are",
                    reason: error.to_string(),
                });
            }
        }
        files::enter(self)?;
        calls::enter(self)?;
        // It is entered once by most; a second one takes more away, and that is not told.
        let _ = CURRENT.set(self.clone());
        Ok(())
    }

    /// Whether a process in it can have others.
    #[must_use]
    pub fn allows_processes(&self) -> bool {
        !self.executes.is_empty()
    }
}

static CURRENT: OnceLock<Sandbox> = OnceLock::new();

/// The sandbox that this process is in, if it is in one.
#[must_use]
pub fn current() -> Option<&'static Sandbox> {
    CURRENT.get()
}
