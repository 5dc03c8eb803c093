//! One pool's connection, as the server sees it.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use procpool_core::{Region, poll};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::child::Child;
use super::forked_worker::{Belongings, ForkedWorker, Outlets};
use crate::hello::Hello;
use crate::message::{Reply, Request, WorkerStdio};
use crate::socket::{Received, Socket};
use crate::sys;

/// One pool's connection, with its workers.
#[derive(Debug)]
pub(super) struct Client {
    socket: Socket,
    /// The workers that nobody has asked to reap, by the number of their launch.
    living: HashMap<u64, Child>,
    /// Those that were killed, with the launch whose end the pool wants to know.
    dying: Vec<(Option<u64>, Child)>,
    /// What the socket had no room for.
    replies: VecDeque<Reply>,
}

/// The answer of [`Client::step`].
#[derive(Debug)]
pub(super) enum Step {
    /// The pool is connected.
    Open,
    /// It is not any more.
    Closed,
    /// This is no longer the server but a worker that it has forked.
    Forked(ForkedWorker),
}

impl Client {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            living: HashMap::new(),
            dying: Vec::new(),
            replies: VecDeque::new(),
        }
    }

    /// Takes one message, if there is one, and does what else is due.
    pub(super) fn step(&mut self) -> Step {
        match self.socket.receive() {
            Received::Nothing => {}
            Received::End => return Step::Closed,
            Received::Message { bytes, descriptors } => match Request::decode(&bytes) {
                Some(Request::Launch {
                    launch,
                    stdio,
                    name,
                }) => {
                    if let Some(forked_worker) = self.launch(launch, stdio, name, descriptors) {
                        return Step::Forked(forked_worker);
                    }
                }
                Some(Request::Reap { launch }) => match self.living.remove(&launch) {
                    Some(child) => self.end(child, Some(launch)),
                    None => self.replies.push_back(Reply {
                        launch,
                        status: procpool_core::ExitStatus::Unknown,
                    }),
                },
                Some(Request::Forget { launch }) => {
                    if let Some(child) = self.living.remove(&launch) {
                        self.end(child, None);
                    }
                }
                None => return Step::Closed,
            },
        }
        self.reap();
        self.reply();
        Step::Open
    }

    /// What to wait for before [`step`](Self::step) has something to do.
    pub(super) fn sources(&self) -> impl Iterator<Item = PollFd<'_>> {
        let wanted = if self.replies.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        };
        std::iter::once(PollFd::from_borrowed_fd(self.socket.as_fd(), wanted))
            .chain(self.dying.iter().filter_map(|(_, child)| child.source()))
    }

    /// How long to wait at most before [`step`](Self::step) has something to do.
    pub(super) fn wait(&self) -> Option<Duration> {
        let dying = self.dying.iter();
        dying.filter_map(|(_, child)| child.wait()).min()
    }

    /// Kills all workers, and says which are still to be reaped.
    pub(super) fn into_orphans(self) -> impl Iterator<Item = Child> {
        let living = self.living.into_values().map(|mut child| {
            child.kill();
            child
        });
        living.chain(self.dying.into_iter().map(|(_, child)| child))
    }

    /// Forks a worker and says hello for it. `Some`: this is the worker.
    fn launch(
        &mut self,
        launch: u64,
        stdio: WorkerStdio,
        name: String,
        given: Vec<OwnedFd>,
    ) -> Option<ForkedWorker> {
        // If the process had no room for all of them, the doorbell is closed by now without a
        // hello, and the pool knows what that means.
        let mut given = given.into_iter();
        let (doorbell, memory, tie) = (given.next()?, given.next()?, given.next()?);
        let mut outlets = Outlets::default();
        for (is_given, outlet) in [
            (stdio.stdout, &mut outlets.stdout),
            (stdio.stderr, &mut outlets.stderr),
            (stdio.events, &mut outlets.events),
        ] {
            if is_given {
                *outlet = Some(given.next()?);
            }
        }
        if given.next().is_some() {
            return None;
        }
        if !has_listener(doorbell.as_fd()) {
            return None;
        }
        // Mapped here rather than in the worker, so that an error can be said.
        // SAFETY: the parent has made this memory by `Region::create`, for this worker alone. The
        // server uses the mapping for nothing, and gives it up when the worker has its copy.
        let region = match unsafe { Region::map(memory.as_fd()) } {
            Ok(region) => region,
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::NOMEM);
                say_hello(doorbell.as_fd(), Hello(Err(errno)));
                return None;
            }
        };
        drop(memory);

        let server = procpool_core::own_pid();
        // SAFETY: the server never starts a thread. What the copy must not do is listed at
        // `sys::fork`; it returns from here straight to `entrypoint::run` and leaves from there.
        let hello = match unsafe { sys::fork() } {
            Ok(None) => {
                let belongings = Belongings {
                    region,
                    doorbell,
                    tie,
                };
                return Some(ForkedWorker::new(server, name, belongings, outlets));
            }
            Ok(Some(pid)) => {
                let child = Child::new(pid);
                let hello = Hello(Ok(child.pid().as_raw_pid().cast_unsigned()));
                self.living.insert(launch, child);
                hello
            }
            Err(errno) => Hello(Err(errno)),
        };
        if !say_hello(doorbell.as_fd(), hello)
            && let Some(child) = self.living.remove(&launch)
        {
            self.end(child, None);
        }
        None
    }

    /// Kills a worker, to be reaped as soon as it is dead.
    fn end(&mut self, mut child: Child, answer: Option<u64>) {
        child.kill();
        self.dying.push((answer, child));
    }

    fn reap(&mut self) {
        self.dying.retain_mut(|(answer, child)| {
            let Some(status) = child.reap() else {
                return true;
            };
            if let Some(launch) = *answer {
                self.replies.push_back(Reply { launch, status });
            }
            false
        });
    }

    fn reply(&mut self) {
        while let Some(reply) = self.replies.front() {
            match self.socket.send(&reply.encode(), &[]) {
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return,
                Ok(()) => {
                    self.replies.pop_front();
                }
                // Either the pool is gone, or it must not wait for an answer that never comes. The
                // next `receive` says that this is the end.
                Err(_) => {
                    self.socket.shut_down();
                    self.replies.clear();
                }
            }
        }
    }
}

/// A client that nobody asks to fork: takes one message whenever it is called, and says whether
/// the connection is open.
#[cfg(any(fuzzing, test))]
pub(crate) fn serve_client(socket: Socket) -> impl FnMut() -> bool {
    let mut client = Client::new(socket);
    move || match client.step() {
        Step::Open => true,
        Step::Closed => false,
        Step::Forked(forked_worker) => panic!("a worker without memory: {forked_worker:?}"),
    }
}

/// Whether anybody holds the reading end of a doorbell: if not, the pool has given the launch up.
fn has_listener(doorbell: BorrowedFd<'_>) -> bool {
    let mut doorbell = [PollFd::from_borrowed_fd(doorbell, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let _ = poll(&mut doorbell, Some(&now));
    !doorbell[0].revents().contains(PollFlags::ERR)
}

/// Writes a hello. `false`: nobody will read it.
fn say_hello(doorbell: BorrowedFd<'_>, hello: Hello) -> bool {
    rustix::io::write(doorbell, &hello.encode()).is_ok()
}
