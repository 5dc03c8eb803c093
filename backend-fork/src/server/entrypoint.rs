//! From the fork to the event loop, and out of the process.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use procpool_core::worker::{ForkHook, inherit, keep_fork_hooks};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use super::event_loop::{EventLoop, LoopExit};
use super::forked_worker::Serve;
use super::parent::{Parent, SERVER_NAME, heed_parent};
use crate::socket::Socket;
use crate::sys;

/// The exit code of a server or a worker that panicked where nothing should.
const PANICKED: i32 = 101;

/// What a server has of the program's, besides its memory as it is.
#[derive(Default)]
pub(crate) struct Kept {
    /// What stays open, if not everything does.
    pub(crate) fds: Option<Vec<RawFd>>,
    /// What each worker runs first.
    pub(crate) hooks: Vec<ForkHook>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("fds", &self.fds)
            .field("hooks", &self.hooks.len())
            .finish()
    }
}

/// Everything that happens in a forked process, the server's or a worker's. `parent` stands for
/// the process that was copied, `main` the server's end of the socket to it. Of all else that is
/// open, only `kept` stays so, if that is said.
pub(crate) fn run(parent: Parent, main: Socket, serve: Serve, kept: Kept) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| {
        let own = [&parent.death.as_fd(), &parent.tie.as_fd(), &main.as_fd()];
        let own = own.map(AsRawFd::as_raw_fd);
        if let Some(mut keep) = kept.fds {
            keep.extend(own);
            // SAFETY: from here on, nothing but the server's loop runs, which has these three, and
            // tasks. That they use no copy of a value whose descriptor is closed is what the
            // program was told.
            unsafe { sys::close_all_but(&mut keep) };
        } else {
            inherit(|it| own.contains(&it));
        }
        detach_from_parent(&parent);
        keep_fork_hooks(kept.hooks);
        let mut server = EventLoop::new(parent, main);
        loop {
            // In a worker and in a standby, the loop is left with everything of the server's
            // closed.
            match server.run() {
                LoopExit::Over => return 0,
                LoopExit::Worker(forked_worker) => return forked_worker.run(serve),
                LoopExit::Standby(standby_process) => match standby_process.wait() {
                    Some((parent, main)) => server = EventLoop::new(parent, main),
                    None => return 0,
                },
            }
        }
    }));
    sys::leave(code.unwrap_or_else(|payload| {
        // Dropping it could panic again.
        let _payload = ManuallyDrop::new(payload);
        PANICKED
    }))
}

/// Makes a copy of the program a process of its own. All of this fails only where the system
/// forbids it altogether (a seccomp filter, say); the server is then merely easier to disturb.
fn detach_from_parent(parent: &Parent) {
    procpool_core::after_fork_in_child();
    open_standard_streams();
    heed_parent();
    let _ = rustix::process::setpgid(None, None);
    // The first server does so for the whole family, which has copies of the descriptor.
    let _ = procpool_core::be_signalled_by(parent.tie.as_fd(), Signal::CONT.as_raw());
    let _ = rustix::thread::set_name(SERVER_NAME);
    sys::reset_signals();
    let _ = replace_stdin();
}

/// Sees to it that nothing that is opened from now on becomes standard input, output or error,
/// which the program may have closed: what tasks print would go there.
fn open_standard_streams() {
    loop {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty());
        match null {
            Ok(null) if null.as_raw_fd() <= 2 => {
                let _for_good = null.into_raw_fd();
            }
            // All are open, or it is a system without the file.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Reads from `/dev/null` from now on. The terminal belongs to the parent, and stops a background
/// process that reads it; what else standard input may be, only one process can read in order.
fn replace_stdin() -> rustix::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null)
}
