//! The fork server as the parent sees it: the process that serves, and the one after it.
#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use pool_core::{ExitStatus, LaunchError, failed};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open, setpgid};

use crate::server::{self, Parent, Serve};
use crate::server_process::ServerProcess;
use crate::socket::{Socket, above};
use crate::start_error::StartError;
use crate::sys;
use crate::wait;

/// So many servers in a row may die before one of them has started a worker. Whoever kills them
/// is quicker than they are, or it is something that kills every one.
const MAX_FRUITLESS: u32 = 8;

/// The fork server: whichever process serves now, and its standby. Shared by the handles,
/// connections and links that need it; the last one to be dropped ends it.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// The process that this value belongs to.
    owner: Pid,
    /// The process group of all servers and standbys, named after the first. The number is theirs
    /// as long as one of them is not reaped.
    family: Pid,
    /// Makes the kernel continue the whole family when it is closed.
    tie: Socket,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    server: ServerProcess,
    /// The last one that the server has announced, or why there is none. It may be dead.
    standby: Option<Result<ServerProcess, Errno>>,
    /// How often the server was succeeded. A connection is to the server of one reign.
    reign: u64,
    /// How many servers in a row have died without having started a worker.
    fruitless: u32,
    /// What became of the last server that was succeeded.
    past: String,
    /// Why there is none any more, and never will be.
    end: Option<LaunchError>,
}

impl Lineage {
    /// Forks the first server. The workers will run `serve`.
    ///
    /// # Safety
    /// Either this process has one thread, or the caller answers for it that the server and the
    /// workers take no lock and read no memory that another thread was at.
    pub(crate) unsafe fn start(serve: Serve) -> Result<Self, StartError> {
        let refused = |call| {
            move |errno| StartError::of_system("cannot start the fork server", failed(call)(errno))
        };
        let owner = getpid();
        let death = pidfd_open(owner, PidfdFlags::empty()).map_err(refused("pidfd_open"))?;
        let death = above(death).map_err(refused("fcntl"))?;
        let (ours, theirs) = Socket::pair().map_err(|(call, errno)| refused(call)(errno))?;
        let (tie, their_tie) = Socket::pair().map_err(|(call, errno)| refused(call)(errno))?;
        let parent = Parent {
            death,
            tie: their_tie,
        };
        sys::flush_streams();
        // No handler of the program's runs in the server before it has taken them off.
        let blocked = sys::block_signals();
        // SAFETY: handed on to the caller. What the copy must not do is listed at `sys::fork`; it
        // goes straight into `run`, which does not return.
        let Some(pid) = (unsafe { sys::fork() }).map_err(refused("fork"))? else {
            drop((ours, tie));
            server::run(parent, theirs, serve)
        };
        drop((blocked, parent));
        // The server does so itself as well, but perhaps later than the next Ctrl-C.
        let _ = setpgid(Some(pid), Some(pid));
        match pidfd_open(pid, PidfdFlags::empty()).and_then(above) {
            Ok(death) => Ok(Self {
                owner,
                family: pid,
                tie,
                state: Mutex::new(State {
                    server: ServerProcess::new(ours, pid, death),
                    standby: None,
                    reign: 0,
                    fruitless: 0,
                    past: String::new(),
                    end: None,
                }),
            }),
            Err(errno) => {
                // It ends by itself as soon as both sockets are closed, and so does its standby,
                // of which nobody was told.
                drop((ours, theirs, tie));
                let _ = kill_process_group(pid, Signal::KILL);
                wait::reap_whole_group(pid);
                Err(refused("pidfd_open")(errno))
            }
        }
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Pid {
        let mut state = self.lock();
        if !self.is_inherited() && state.end.is_none() && state.server.is_over() {
            // If nobody does, it is the last one that did.
            let _ = self.succeed(&mut state);
        }
        state.server.pid()
    }

    /// Whether this value came into this process by a fork: then it stands for nothing here.
    pub(crate) fn is_inherited(&self) -> bool {
        getpid() != self.owner
    }

    /// Hands the server its end of a new pool's connection, and answers whose reign it is.
    pub(crate) fn connect(&self, end: &Socket) -> Result<u64, LaunchError> {
        if self.is_inherited() {
            return Err(LaunchError::new(
                "this fork server belongs to the process that this one was forked from; start one \
                 of your own",
            ));
        }
        let mut state = self.lock();
        loop {
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            state.hear();
            match state.server.connect(end) {
                Ok(()) => return Ok(state.reign),
                Err(Errno::PIPE | Errno::CONNRESET) => self.succeed(&mut state)?,
                Err(Errno::AGAIN) => {
                    return Err(LaunchError::new(
                        "the fork server does not answer; has somebody stopped it?",
                    ));
                }
                Err(errno) => {
                    let error = LaunchError::new("cannot reach the fork server");
                    return Err(error.caused_by(failed("sendmsg")(errno)));
                }
            }
        }
    }

    /// Takes the server's news, if there are any. To be called now and then.
    pub(crate) fn hear(&self) {
        self.lock().hear();
    }

    /// The server of this reign has started a worker.
    pub(crate) fn has_served(&self, reign: u64) {
        let mut state = self.lock();
        if state.reign == reign {
            state.fruitless = 0;
        }
    }

    /// Whether the server of this reign is alive.
    pub(crate) fn is_alive(&self, reign: u64) -> bool {
        let state = self.lock();
        state.reign == reign && state.end.is_none() && !state.server.is_over()
    }

    /// Why the server of this reign has closed what it should not have: it has died, and there is
    /// another one now, or none any more, or it had no room for it.
    pub(crate) fn gone(&self, reign: u64, no_room: &str) -> LaunchError {
        let mut state = self.lock();
        if let Some(end) = &state.end {
            return end.clone();
        }
        if state.reign == reign {
            if !state.server.is_nearly_over() {
                return LaunchError::new(format!(
                    "the fork server, process {}, has no room for {no_room}; raise the limit of \
                     open files (ulimit -n) before starting it",
                    state.server.pid().as_raw_pid()
                ));
            }
            if let Err(error) = self.succeed(&mut state) {
                return error;
            }
        }
        LaunchError::new(format!("{}; its standby has taken its place", state.past))
            .from_lost_starter()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics leaves the state in disorder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has died: puts the standby in its place.
    ///
    /// # Errors
    /// When there is none. That is the end of this value's use.
    fn succeed(&self, state: &mut State) -> Result<(), LaunchError> {
        // The kernel closes the sockets of a dying process a moment before it says that it is dead.
        // Nobody wants one that lives on without its socket.
        state.server.end();
        state.past = describe("the fork server", &state.server);
        // What it has sent before it died can still be read.
        state.hear();
        let failure = match state.standby.take() {
            // Once it is called, it is the server, however short its life is: it may have made a
            // standby of its own.
            Some(Ok(standby)) if !standby.is_over() && standby.call().is_ok() => {
                state.server = standby;
                state.reign += 1;
                state.fruitless += 1;
                if state.fruitless < MAX_FRUITLESS {
                    // The dead one, and any standby of which nobody was told; this one stays, and
                    // so the number is theirs.
                    wait::reap_group(self.family);
                    return Ok(());
                }
                format!("the {MAX_FRUITLESS} before it had not started a worker either")
            }
            Some(Ok(standby)) => {
                standby.end();
                let fate = describe("and its standby", &standby);
                format!("{fate} as well")
            }
            Some(Err(errno)) => format!("it could not make a standby (clone, socketpair): {errno}"),
            None => "it had no standby yet".to_owned(),
        };
        let error = LaunchError::new(format!(
            "{}; {failure}; no other can be started, because that is sound only while this \
             program has one thread",
            state.past
        ));
        state.end = Some(error.clone());
        self.bury(state);
        Err(error)
    }

    /// Kills and reaps the whole family.
    ///
    /// If this process may not signal it any more, for it has dropped its privileges since, the
    /// family ends by itself, all of its sockets being closed; it is continued first, should
    /// somebody have stopped it.
    fn bury(&self, state: &mut State) {
        self.tie.shut_down();
        state.server.kill();
        // One that the parent has not heard of yet.
        state.hear();
        if let Some(Ok(standby)) = &state.standby {
            standby.kill();
        }
        // Unless somebody else has reaped it, so that the number may be another group's.
        if state.server.fate() != ExitStatus::Unknown {
            let _ = kill_process_group(self.family, Signal::KILL);
        }
        wait::reap_whole_group(self.family);
    }
}

impl State {
    /// Takes the news of the server's standby.
    fn hear(&mut self) {
        while let Some(news) = self.server.hear() {
            // The last one is dead, if there was one: else there would be no other.
            if let Some(Ok(last)) = self.standby.replace(news) {
                last.reap();
            }
        }
    }
}

impl Drop for Lineage {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        let mut state = self.lock();
        if state.end.is_none() {
            // It is to kill its workers in good order. A standby has none.
            state.server.end();
            self.bury(&mut state);
        }
    }
}

/// Who it was, and how it ended.
fn describe(what: &str, process: &ServerProcess) -> String {
    let pid = process.pid().as_raw_pid();
    format!("{what}, process {pid}, {}", process.fate())
}
