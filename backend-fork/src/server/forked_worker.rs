//! What a worker does between the fork and its work.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use procpool_core::Region;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::sys;
use crate::threads;

/// What a worker does: [`procpool_core::worker::serve`], or something else in tests. Its contract
/// is the contract of that.
pub type Serve = unsafe fn(Region, OwnedFd) -> i32;

/// How long a worker that ends waits for its output to be written, if its tasks have left threads
/// behind.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// A process that was just forked to be a worker.
#[derive(Debug)]
pub(super) struct ForkedWorker {
    /// 0: it is not known.
    server: u32,
    name: String,
    belongings: Belongings,
    outlets: Outlets,
}

/// What every worker gets.
#[derive(Debug)]
pub(super) struct Belongings {
    pub(super) region: Region,
    pub(super) doorbell: OwnedFd,
    /// To the parent.
    pub(super) tie: OwnedFd,
}

/// What a worker is to write to, where that is not what the server has.
#[derive(Debug, Default)]
pub(super) struct Outlets {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) events: Option<OwnedFd>,
}

impl ForkedWorker {
    pub(super) fn new(server: u32, name: String, belongings: Belongings, outlets: Outlets) -> Self {
        Self {
            server,
            name,
            belongings,
            outlets,
        }
    }

    /// Works, and answers the exit code.
    pub(super) fn run(self, serve: Serve) -> i32 {
        procpool_core::after_fork_in_child();
        // A group of its own, so that killing the worker reaches what its tasks have started.
        let _ = rustix::process::setpgid(None, None);
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The server may have died before that. (0: a sandbox does not say who the parent is.)
        let starter = procpool_core::starter();
        if starter != self.server && starter != 0 && self.server != 0 {
            sys::leave(0);
        }
        let Belongings {
            region,
            doorbell,
            tie,
        } = self.belongings;
        let bound = procpool_core::worker::bind_to_parent(tie);
        // Where a sandbox does not allow it, the signal above remains.
        if bound.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            sys::leave(0);
        }
        procpool_core::worker::prepare_process();
        if let Ok(name) = CString::new(self.name) {
            let _ = rustix::thread::set_name(&name);
        }
        self.outlets.attach();
        // SAFETY: the memory came over a pool's connection, one end of which only the parent has
        // had. Its launcher makes and prepares a region for each worker alone, and gives its side
        // to the engine alone. This process is a copy of that parent, and so runs the same
        // executable.
        let code = unsafe { serve(region, doorbell) };
        flush();
        code
    }
}

impl Outlets {
    /// Writes there from now on. It fails only where the system forbids it altogether.
    fn attach(self) {
        if let Some(stdout) = self.stdout {
            let _ = patiently(|| rustix::stdio::dup2_stdout(&stdout));
        }
        if let Some(stderr) = self.stderr {
            let _ = patiently(|| rustix::stdio::dup2_stderr(&stderr));
        }
        if let Some(events) = self.events {
            procpool_core::worker::forward_events_to(events);
        }
    }
}

/// Repeats a `dup2` a few times if that may be of use: a signal came, or somebody was about to open
/// another file under that number.
fn patiently(mut dup2: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    const TRIES: u32 = 100;
    for _ in 1..TRIES {
        match dup2() {
            Err(Errno::INTR | Errno::BUSY) => {}
            done => return done,
        }
    }
    dup2()
}

/// Writes out what is buffered, as far as that is possible without waiting forever: a thread that
/// a task has left behind may hold the lock of standard output.
fn flush() {
    if threads::others().is_ok_and(|others| others.is_empty()) {
        return sys::flush_streams();
    }
    let (done, flushed) = mpsc::channel();
    let flusher = std::thread::Builder::new().spawn(move || {
        sys::flush_streams();
        let _ = done.send(());
    });
    if flusher.is_ok() {
        let _ = flushed.recv_timeout(FLUSH_LIMIT);
    }
}
