//! The process on the other side of the floors: forked once, while the program is small, it sleeps
//! until it is asked to play one of the games.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid};

use super::ping_pong::{Way, play};
use super::shared::Shared;
use super::{copy, starts};

/// What the other side is asked, followed by two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Game {
    PingPong(Way),
    Copy,
    Forks,
}

const GAMES: &[Game] = &[
    Game::PingPong(Way::Spinning),
    Game::PingPong(Way::Futex),
    Game::PingPong(Way::Socket),
    Game::Copy,
    Game::Forks,
];

/// A handle on that process, shared by all floors that need one. With the last one it ends.
#[derive(Clone)]
pub struct OtherSide {
    link: Rc<RefCell<WorkerHandle>>,
    pub(super) shared: &'static Shared,
}

struct WorkerHandle {
    control: UnixStream,
    socket: UnixStream,
    pid: Pid,
}

impl OtherSide {
    /// Forks it. To be called while there is one thread.
    ///
    /// # Errors
    /// When the system refuses memory, sockets or a process, or there are several threads.
    pub fn start() -> Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        ensure!(threads == 1, "the floors must start before any thread");
        let shared = Shared::map()?;
        let (control, its_control) = UnixStream::pair()?;
        let (socket, its_socket) = UnixStream::pair()?;
        #[expect(clippy::disallowed_methods, reason = "a floor is raw system calls")]
        // SAFETY: there is one thread. The child leaves by `_exit` and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("the floors' other side"),
            0 => {
                // It must end with us, even if we are killed.
                let _ = set_parent_process_death_signal(Some(Signal::KILL));
                drop((control, socket));
                serve(shared, its_control, its_socket);
                // SAFETY: it ends here, without destructors, which are the parent's.
                unsafe { libc::_exit(0) }
            }
            child => Ok(Self {
                link: Rc::new(RefCell::new(WorkerHandle {
                    control,
                    socket,
                    pid: Pid::from_raw(child).context("fork gave no process")?,
                })),
                shared,
            }),
        }
    }

    /// Has it play a game; `body` plays this side.
    pub(super) fn play<T>(
        &self,
        game: Game,
        count: u64,
        size: u64,
        body: impl FnOnce(&mut UnixStream) -> Result<T>,
    ) -> Result<T> {
        let mut link = self.link.borrow_mut();
        let number = GAMES.iter().position(|&known| known == game);
        let number = number.context("a game that is not in the list")? as u64;
        let mut order = [0; 24];
        for (field, value) in order.chunks_exact_mut(8).zip([number, count, size]) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        link.control.write_all(&order)?;
        body(&mut link.socket)
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        // Not merely closed: a fork server that was started later has a copy.
        let _ = self.control.shutdown(Shutdown::Both);
        // An error means that it was collected already.
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// The other side, until there is nobody to play with.
fn serve(shared: &Shared, mut control: UnixStream, mut socket: UnixStream) {
    let mut order = [0; 24];
    while control.read_exact(&mut order).is_ok() {
        let number = |field: usize| {
            let bytes = order[field * 8..][..8].try_into().expect("they are eight");
            u64::from_ne_bytes(bytes)
        };
        let (count, size) = (number(1), number(2));
        let Some(game) = GAMES.get(number(0) as usize) else {
            return;
        };
        match game {
            Game::PingPong(way) => play(*way, shared, &mut socket, count, size),
            Game::Copy => copy::echo(shared, count, size),
            Game::Forks => starts::fork_newborns(&mut socket, count),
        }
    }
}
