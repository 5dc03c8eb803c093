//! The fork server as the parent sees it: the process that serves, and the one after it.
#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use procpool_core::{ExitStatus, LaunchError, failed};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, setpgid};

use crate::server::{self, Kept, Parent, Serve};
use crate::server_process::ServerProcess;
use crate::socket::{Socket, above};
use crate::start_error::StartError;
use crate::sys;
use crate::wait;

/// This many servers in a row may die before one of them has started a worker. A killer of
/// is quicker than they are, or it is something that kills every one.
const MAX_FRUITLESS: u32 = 8;

/// How long the rest of a dying process may take, once something of it is closed: microseconds,
/// unless others need the processor, or a debugger or a frozen container keeps it.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The fork server: whichever process serves now, and its standby. Shared by the handles,
/// connections and links that need it; the last one to be dropped ends it.
///
/// Nothing waits while it holds the lock, and but for the drop nothing waits at all where an
/// engine calls: it has other pools' deadlines to keep, and asks again instead.
#[derive(Debug)]
pub(crate) struct ServerFailover {
    /// The process that this value belongs to.
    owner: u32,
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
    /// How often the server was succeeded. A connection is to the server of one epoch.
    epoch: u64,
    /// Since when the server, or the standby that should take its place, was seen to be ending
    /// and not dead.
    dying_since: Option<Instant>,
    /// How many servers in a row have died without having started a worker.
    fruitless: u32,
    /// What became of the last server that was succeeded.
    past: String,
    /// Why there is none any more, and never will be.
    end: Option<LaunchError>,
    /// Whether all of the family is reaped, so that its number may be another group's.
    is_buried: bool,
}

impl ServerFailover {
    /// Forks the first server. The workers will run `serve`.
    ///
    /// # Safety
    /// Either this process has one thread, or the caller answers for it that the server and the
    /// workers take no lock and read no memory that another thread was at.
    pub(crate) unsafe fn start(serve: Serve, keep: Kept) -> Result<Self, StartError> {
        let refused = |call| {
            move |errno| StartError::of_system("cannot start the fork server", failed(call)(errno))
        };
        let owner = procpool_core::own_pid();
        let myself = Pid::from_raw(owner.cast_signed()).ok_or(Errno::PERM);
        let death = pidfd_open(myself.map_err(refused("getpid"))?, PidfdFlags::empty())
            .map_err(refused("pidfd_open"))?;
        let death = above(death).map_err(refused("fcntl"))?;
        let (ours, theirs) = Socket::pair().map_err(|(call, errno)| refused(call)(errno))?;
        let (tie, their_tie) = Socket::pair().map_err(|(call, errno)| refused(call)(errno))?;
        let parent = Parent {
            death,
            tie: their_tie,
        };
        // Here, and not in the copy: it asks the loader, whose lock a thread may hold.
        procpool_core::worker::warm_up();
        sys::flush_streams();
        // No handler of the program's runs in the server before it has taken them off.
        let blocked = sys::block_signals();
        // SAFETY: handed on to the caller. What the copy must not do is listed at `sys::fork`; it
        // goes straight into `run`, which does not return.
        let Some(pid) = (unsafe { sys::fork() }).map_err(refused("fork"))? else {
            drop((ours, tie));
            server::run(parent, theirs, serve, keep)
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
                    epoch: 0,
                    dying_since: None,
                    fruitless: 0,
                    past: String::new(),
                    end: None,
                    is_buried: false,
                }),
            }),
            Err(errno) => {
                // It ends as soon as both sockets are closed, and so does its standby,
                // that nobody knows.
                drop((ours, theirs, tie));
                let _ = kill_process_group(pid, Signal::KILL);
                wait::reap_whole_group(pid);
                Err(refused("pidfd_open")(errno))
            }
        }
    }

    /// The process that serves. Waits for a moment if it is dying.
    pub(crate) fn pid(&self) -> Pid {
        wait::until_ready(|| {
            let mut state = self.lock();
            if !self.is_inherited()
                && state.end.is_none()
                && state.server.is_over()
                && self.succeed(&mut state).is_pending()
            {
                return Poll::Pending;
            }
            // If nobody serves, it is the last one that did.
            Poll::Ready(state.server.pid())
        })
    }

    /// Whether this value came into this process by a fork: then it stands for nothing here.
    pub(crate) fn is_inherited(&self) -> bool {
        // A sandbox that was put up later says nothing.
        ![self.owner, 0].contains(&procpool_core::own_pid())
    }

    /// Hands the server its end of a new pool's connection, and answers whose epoch it is. To be
    /// asked again if the server is dying, so that it is not known yet who comes after it.
    pub(crate) fn connect(&self, end: &Socket) -> Poll<Result<u64, LaunchError>> {
        if self.is_inherited() {
            return Poll::Ready(Err(LaunchError::new(
                "this fork server belongs to the process that this one was forked from; start one \
                 of your own",
            )));
        }
        let mut state = self.lock();
        loop {
            if let Some(end) = self.end(&mut state) {
                return Poll::Ready(Err(end));
            }
            state.hear();
            let error =
                match state.server.connect(end) {
                    Ok(()) => return Poll::Ready(Ok(state.epoch)),
                    Err(Errno::PIPE | Errno::CONNRESET) => match self.succeed(&mut state) {
                        Poll::Ready(Ok(())) => continue,
                        Poll::Ready(Err(error)) => error,
                        Poll::Pending => return Poll::Pending,
                    },
                    Err(Errno::AGAIN) => LaunchError::new(
                        "the fork server does not answer; has somebody stopped it?",
                    ),
                    Err(errno) => LaunchError::new("cannot reach the fork server")
                        .caused_by(failed("sendmsg")(errno)),
                };
            return Poll::Ready(Err(error));
        }
    }

    /// Takes the server's news, if there are any. To be called now and then.
    pub(crate) fn hear(&self) {
        self.lock().hear();
    }

    /// The server of this epoch has started a worker.
    pub(crate) fn has_served(&self, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch {
            state.fruitless = 0;
        }
    }

    /// Whether the server of this epoch is alive.
    pub(crate) fn is_alive(&self, epoch: u64) -> bool {
        let state = self.lock();
        state.epoch == epoch && state.end.is_none() && !state.server.is_over()
    }

    /// Whether the server of this epoch is dead, so that its children have another parent. A server
    /// that is dying has closed its sockets before.
    pub(crate) fn is_dead(&self, epoch: u64) -> bool {
        let state = self.lock();
        // One that was succeeded is dead, or nobody waits for it any more.
        state.epoch != epoch || state.end.is_some() || state.server.is_dead()
    }

    /// Why the server of this epoch has closed, at `since`, what it should not have: it has died,
    /// and there is another one now, or none any more; or it had no room for it. To be asked again
    /// as long as it may be dying.
    pub(crate) fn gone(&self, epoch: u64, no_room: &str, since: Instant) -> Poll<LaunchError> {
        let mut state = self.lock();
        if let Some(end) = self.end(&mut state) {
            return Poll::Ready(end);
        }
        if state.epoch == epoch {
            if !state.server.is_over() {
                if since.elapsed() < LAST_MOMENT {
                    return Poll::Pending;
                }
                return Poll::Ready(LaunchError::new(format!(
                    "the fork server, process {}, has no room for {no_room}; raise the limit of \
                     open files (ulimit -n) before starting it",
                    state.server.pid().as_raw_pid()
                )));
            }
            match self.succeed(&mut state) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(
            LaunchError::new(format!("{}; its standby has taken its place", state.past))
                .from_lost_fork_server(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics leaves the state in disorder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no server any more, if there is none. Those that were still dying then are
    /// reaped.
    fn end(&self, state: &mut State) -> Option<LaunchError> {
        let end = state.end.clone()?;
        state.is_buried = state.is_buried || wait::reap_group(self.family);
        Some(end)
    }

    /// The server has died, or is about to: puts the standby in its place, once it is dead.
    ///
    /// # Errors
    /// When there is none. That is the end of this value's use.
    fn succeed(&self, state: &mut State) -> Poll<Result<(), LaunchError>> {
        // The kernel closes the sockets of a dying process a moment before it says that it is dead
        // and how it died. Nobody wants one that lives on without its socket.
        if state.waits_for(&state.server) {
            state.dying_since.get_or_insert_with(Instant::now);
            return Poll::Pending;
        }
        // What it has sent before it died can still be read.
        state.hear();
        let is_called = match &state.standby {
            // Once it is called, it is the server, however short its life is: it may have made a
            // standby of its own.
            Some(Ok(standby)) => !standby.is_over() && standby.call().is_ok(),
            Some(Err(_)) | None => false,
        };
        if let Some(Ok(standby)) = &state.standby
            && !is_called
            && state.waits_for(standby)
        {
            state.dying_since.get_or_insert_with(Instant::now);
            return Poll::Pending;
        }
        state.dying_since = None;
        state.server.kill();
        state.past = describe("the fork server", &state.server);
        let failure = match state.standby.take() {
            Some(Ok(standby)) if is_called => {
                state.server = standby;
                state.epoch += 1;
                state.fruitless += 1;
                if state.fruitless < MAX_FRUITLESS {
                    // The dead one, and any standby that nobody knows; this one stays, and
                    // so the number is theirs.
                    wait::reap_group(self.family);
                    return Poll::Ready(Ok(()));
                }
                format!("the {MAX_FRUITLESS} before it had not started a worker either")
            }
            Some(Ok(standby)) => {
                standby.kill();
                let exit_status = describe("and its standby", &standby);
                format!("{exit_status} as well")
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
        self.kill_family(state);
        // What is not dead yet is reaped when this value is dropped.
        state.is_buried = wait::reap_group(self.family);
        Poll::Ready(Err(error))
    }

    /// Kills the whole family.
    ///
    /// If this process may not signal it any more, for it has dropped its privileges since, the
    /// family ends, all of its sockets being closed; it is continued first, should
    /// somebody have stopped it.
    fn kill_family(&self, state: &mut State) {
        self.tie.shut_down();
        state.server.kill();
        // One that the parent has not heard of yet.
        state.hear();
        if let Some(Ok(standby)) = &state.standby {
            standby.kill();
        }
        // Unless somebody else has reaped it, so that the number may be another group's.
        if state.server.exit_status() != ExitStatus::Unknown {
            let _ = kill_process_group(self.family, Signal::KILL);
        }
    }
}

impl State {
    /// Whether this process is not dead, and should be within a moment.
    fn waits_for(&self, process: &ServerProcess) -> bool {
        let has_time = self
            .dying_since
            .is_none_or(|since| since.elapsed() < LAST_MOMENT);
        has_time && !process.is_dead()
    }

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

impl Drop for ServerFailover {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        let mut state = self.lock();
        if state.end.is_none() {
            // It is to kill its workers in good order. A standby has none.
            state.server.end();
            self.kill_family(&mut state);
        }
        if !state.is_buried {
            wait::reap_whole_group(self.family);
        }
    }
}

/// Which process it was, and how it ended.
fn describe(what: &str, process: &ServerProcess) -> String {
    let pid = process.pid().as_raw_pid();
    format!("{what}, process {pid}, {}", process.exit_status())
}
