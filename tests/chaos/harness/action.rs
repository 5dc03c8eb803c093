//! What tasks do in the workers.

use std::panic::{catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{ForkResult, Uid};
use procpool::worker;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use super::backend::{self, Kind};
use super::effects::Harm;
use super::load::Trap;
use super::notes;

/// The user who has no rights.
const NOBODY: Uid = Uid::from_raw(65_534);

/// How long a copy lives that nobody ends.
const ALONE: Duration = Duration::from_secs(1);

/// How often an item says that it runs which says that.
const BEAT: Duration = Duration::from_millis(100);

/// The variable of the environment that makes tasks print. They are captured then.
pub(crate) const TALK: &str = "CHAOS_TALK";

/// What a task does besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    Nothing,
    SleepMs(u16),
    SpinUs(u32),
    /// Writes down that it runs, again and again, for so long: longer than a lease, perhaps.
    BeatMs(u16),
    /// Sleeps until it is killed.
    Forever,
    /// Works until it is asked to stop.
    UntilCancelled,
    Panic,
    /// Fails with a panic's payload, without a panic, after one that it has caught.
    Resume,
    /// Catches a panic, and sleeps until it is killed.
    CatchAndStay,
    /// Becomes another user for good, if it may.
    DropPrivileges,
    /// The same, and may have no process or thread more from then on.
    FewProcesses,
    Exit(u8),
    Abort,
    Segfault,
    Kill,
    /// Starts a process that lives this many seconds, and stays for some milliseconds. Unless it is
    /// left, the process is killed then.
    Child {
        seconds: u16,
        ms: u16,
        leave: bool,
    },
    /// Forks a copy of its worker, which has all that the worker has open, and stays for some
    /// milliseconds.
    Fork {
        copy: Fork,
        seconds: u16,
        ms: u16,
    },
    /// Closes every descriptor that it does not know, as programs do before they execute something.
    Close(Closed),
    /// Runs a map in a pool of its own.
    Nested(Kind),
    /// The argument cannot be encoded or decoded.
    Argument(ArgumentTrap),
    /// The result cannot be encoded or decoded.
    Answer(ArgumentTrap),
}

/// What a task does that has closed its worker's descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Closed {
    /// Returns after some milliseconds.
    Returns(u16),
    /// Opens files of its own, which get the numbers of those that it has closed, and returns.
    Opens,
    /// Sleeps until it is killed.
    Stays,
}

/// What a copy of a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fork {
    /// Lives for a while, in the worker's process group, and with all that it has open.
    Stays,
    /// Lives for a while, in a session of its own: longer than its worker, perhaps.
    Escapes,
    /// Returns from the task, as the worker does.
    Returns,
    /// Dies at once. Nobody reaps it.
    Dies,
}

/// A [`Trap`] that can be sent: its number in [`Trap::SHUT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArgumentTrap(u8);

impl ArgumentTrap {
    pub(crate) fn number(number: usize) -> Self {
        Self((number % Trap::SHUT.len()) as u8)
    }

    pub(crate) fn trap(self) -> Trap {
        Trap::SHUT[usize::from(self.0)]
    }
}

impl Deed {
    /// Whether an item that does this may end with a value.
    pub(crate) fn can_succeed(self) -> bool {
        matches!(
            self,
            Self::Nothing
                | Self::SleepMs(_)
                | Self::SpinUs(_)
                | Self::BeatMs(_)
                | Self::DropPrivileges
                | Self::FewProcesses
                | Self::Child { .. }
                | Self::Fork { .. }
                | Self::Nested(_)
                | Self::Close(Closed::Returns(_) | Closed::Opens)
        )
    }

    /// Whether it ends with a panic of its own.
    pub(crate) fn panics(self) -> bool {
        matches!(self, Self::Panic | Self::Resume)
    }

    /// The signal, or the exit code, that it ends its worker with.
    pub(crate) fn own_death(self) -> Option<(Option<i32>, Option<i32>)> {
        let signal = |signal: Signal| Some((Some(signal.as_raw()), None));
        match self {
            Self::Exit(code) => Some((None, Some(i32::from(code)))),
            Self::Abort => signal(Signal::ABORT),
            Self::Segfault => signal(Signal::SEGV),
            // The pool kills it.
            Self::Kill | Self::Close(Closed::Stays) => signal(Signal::KILL),
            _ => None,
        }
    }

    /// Whether it may take longer than a worker has that cannot be heard.
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::Forever
                | Self::CatchAndStay
                | Self::UntilCancelled
                | Self::Nested(_)
                | Self::BeatMs(_)
                | Self::SleepMs(50..)
                | Self::Close(Closed::Stays)
        )
    }

    /// Whether it is about its worker's process and what is around it.
    pub(crate) fn is_local(self) -> bool {
        matches!(
            self,
            Self::DropPrivileges
                | Self::FewProcesses
                | Self::Child { .. }
                | Self::Fork { .. }
                | Self::Close(_)
                | Self::Nested(_)
        )
    }

    /// The trap in its argument.
    pub(crate) fn argument(self) -> Trap {
        match self {
            Self::Argument(trap) => trap.trap(),
            _ => Trap::Open,
        }
    }

    /// The trap in its result.
    pub(crate) fn answer(self) -> Trap {
        match self {
            Self::Answer(trap) => trap.trap(),
            _ => Trap::Open,
        }
    }

    /// Does it. The error is what went wrong in a nested pool.
    pub(crate) fn done(self, id: u64) -> Result<(), String> {
        match self {
            Self::Nothing | Self::Argument(_) | Self::Answer(_) => {}
            Self::SleepMs(ms) => std::thread::sleep(Duration::from_millis(ms.into())),
            Self::SpinUs(us) => spin(Duration::from_micros(us.into())),
            Self::BeatMs(ms) => {
                let end = Instant::now() + Duration::from_millis(ms.into());
                while Instant::now() < end {
                    notes::beat(id);
                    std::thread::sleep(BEAT);
                }
            }
            Self::Forever => stay(()),
            Self::Resume => {
                let _ = catch_unwind(|| panic!("caught by {id}"));
                resume_unwind(Box::new(format!("as ordered by {id}")));
            }
            Self::CatchAndStay => {
                let _ = catch_unwind(|| panic!("caught by {id}"));
                stay(());
            }
            Self::Close(closed) => close_the_unknown(closed),
            Self::DropPrivileges => drop_privileges(),
            Self::FewProcesses => {
                drop_privileges();
                let none = Rlimit {
                    current: Some(0),
                    maximum: Some(0),
                };
                let is_set = setrlimit(Resource::Nproc, none).is_ok();
                if is_set && std::thread::Builder::new().spawn(|| ()).is_err() {
                    notes::effect(Harm::FewProcessesInWorker);
                }
            }
            Self::UntilCancelled => {
                while !worker::is_cancelled() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            Self::Panic => panic!("as ordered by {id}"),
            #[allow(clippy::exit, reason = "what tasks do")]
            Self::Exit(code) => std::process::exit(code.into()),
            Self::Abort => std::process::abort(),
            Self::Segfault => die_of(Signal::SEGV),
            Self::Kill => die_of(Signal::KILL),
            Self::Child { seconds, ms, leave } => have_child(seconds, ms, leave),
            Self::Fork { copy, seconds, ms } => have_copy(copy, seconds, ms),
            // Another user may not reach what a pool of its own needs.
            Self::Nested(_) if nix::unistd::geteuid() == NOBODY => {}
            Self::Nested(kind) => {
                let squares = backend::nested(kind, 20)?;
                if !squares.into_iter().eq((0..20).map(|x| x * x)) {
                    return Err("the nested pool gave wrong squares".into());
                }
            }
        }
        Ok(())
    }
}

/// Sleeps until it is killed.
pub(crate) fn stay((): ()) {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn spin(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn die_of(signal: Signal) {
    // The first SIGSEGV is taken by the Rust runtime, which looks for overflows of the stack and
    // then leaves the signal to the kernel.
    loop {
        let _ = kill_process(getpid(), signal);
    }
}

fn have_child(seconds: u16, ms: u16, leave: bool) {
    let child = Command::new("sleep")
        .arg(seconds.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if child.is_ok() {
        notes::effect(Harm::Child);
    }
    std::thread::sleep(Duration::from_millis(ms.into()));
    // If no process is to be had, there is none to end.
    if let Ok(mut child) = child
        && !leave
    {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Becomes nobody, and stays it.
fn drop_privileges() {
    let before = nix::unistd::geteuid();
    // It fails where it is nobody already.
    if nix::unistd::setuid(NOBODY).is_ok() && before != nix::unistd::geteuid() {
        notes::effect(Harm::DropPrivileges);
    }
}

fn close_the_unknown(closed: Closed) {
    notes::close_all_others();
    notes::effect(match closed {
        Closed::Stays => Harm::CloseAndStay,
        Closed::Returns(_) | Closed::Opens => Harm::Close,
    });
    match closed {
        Closed::Returns(ms) => std::thread::sleep(Duration::from_millis(ms.into())),
        Closed::Opens => {
            // They stay open.
            let files = (0..20).map_while(|_| std::fs::File::open("/dev/null").ok());
            files.for_each(std::mem::forget);
        }
        Closed::Stays => stay(()),
    }
}

fn have_copy(copy: Fork, seconds: u16, ms: u16) {
    // If no process is to be had, there is no copy.
    let Some(forked) = notes::fork() else { return };
    let lifetime = Duration::from_secs(seconds.into());
    match (forked, copy) {
        (ForkResult::Child, Fork::Returns) => return,
        (ForkResult::Child, Fork::Dies) => die_of(Signal::KILL),
        (ForkResult::Child, Fork::Stays) => {
            std::thread::sleep(lifetime);
            die_of(Signal::KILL);
        }
        (ForkResult::Child, Fork::Escapes) => {
            let _ = nix::unistd::setsid();
            // Nobody ends it but itself.
            std::thread::sleep(lifetime.min(ALONE));
            die_of(Signal::KILL);
        }
        (ForkResult::Parent { .. }, _) => {}
    }
    notes::effect(match copy {
        Fork::Stays => Harm::CopyStays,
        Fork::Escapes => Harm::CopyEscapes,
        Fork::Returns => Harm::CopyReturns,
        Fork::Dies => Harm::CopyDies,
    });
    std::thread::sleep(Duration::from_millis(ms.into()));
}

/// An item runs.
pub(crate) fn note_run(id: u64) {
    notes::run(id);
    if std::env::var_os(TALK).is_some() {
        println!("item {id} begins");
        eprintln!("item {id} begins");
    }
}

/// What an initializer is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Beginning {
    /// What tasks of this pool can see from then on.
    pub(crate) token: u64,
    /// It fails in one worker of this many.
    pub(crate) fails_in: Option<u32>,
}

static TOKEN: AtomicU64 = AtomicU64::new(0);

/// The initializer.
pub(crate) fn begin(beginning: Beginning) {
    if let Some(one_of) = beginning.fails_in
        && std::process::id().is_multiple_of(one_of)
    {
        panic!("not a day to begin");
    }
    TOKEN.store(beginning.token, Ordering::Relaxed);
}

/// What the initializer left; 0 if it did not run.
pub(crate) fn token() -> u64 {
    TOKEN.load(Ordering::Relaxed)
}

/// The finalizer.
pub(crate) fn finish() {
    TOKEN.store(0, Ordering::Relaxed);
}
