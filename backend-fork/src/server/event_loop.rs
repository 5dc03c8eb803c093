//! The fork server's loop.

use std::time::Duration;

use procpool_core::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::child::Child;
use super::client::{Client, Step};
use super::forked_worker::ForkedWorker;
use super::parent::Parent;
use super::standby::Standby;
use super::standby_process::StandbyProcess;
use crate::message::CONNECT;
use crate::socket::{Received, Socket};

/// What the fork server holds.
#[derive(Debug)]
pub(super) struct EventLoop {
    parent: Parent,
    /// The socket over which pools are connected, until the parent closes it.
    main: Option<Socket>,
    /// The connected pools.
    clients: Vec<Client>,
    /// Killed workers of pools that are no longer connected.
    orphans: Vec<Child>,
    standby: Standby,
}

/// How the loop was left.
#[derive(Debug)]
pub(super) enum LoopExit {
    /// There is nobody left to serve.
    Over,
    /// By a worker that the server has forked, in which what the server held is closed.
    Worker(ForkedWorker),
    /// By the standby, in which it is closed as well.
    Standby(StandbyProcess),
}

impl EventLoop {
    pub(super) fn new(parent: Parent, main: Socket) -> Self {
        Self {
            parent,
            main: Some(main),
            clients: Vec::new(),
            orphans: Vec::new(),
            standby: Standby::default(),
        }
    }

    /// Serves until there is nobody left to serve, in the server itself; in what it forks, it
    /// returns from the fork.
    pub(super) fn run(mut self) -> LoopExit {
        loop {
            if self.main.is_none() && self.clients.is_empty() && self.orphans.is_empty() {
                return LoopExit::Over;
            }
            // Before anything else, so that a server that may have workers has a standby.
            if let Some(main) = &self.main
                && let Some(called) = self.standby.keep(main)
            {
                return LoopExit::Standby(StandbyProcess::new(self.parent, called));
            }
            match self.wait() {
                Ok(ParentAlive(true)) => {}
                Err(Errno::INTR) => continue,
                // Without the system's answer there is no way on, other than not at all: the
                // workers die with the server.
                Ok(ParentAlive(false)) | Err(_) => {
                    self.kill_all();
                    return LoopExit::Over;
                }
            }
            // Everything is looked at, whatever it was that woke the server: nothing here blocks.
            self.orphans.retain_mut(|orphan| orphan.reap().is_none());
            let mut at = 0;
            while at < self.clients.len() {
                match self.clients[at].step() {
                    Step::Open => at += 1,
                    Step::Closed => {
                        let client = self.clients.swap_remove(at);
                        self.orphans.extend(client.into_orphans());
                    }
                    Step::Forked(forked_worker) => return LoopExit::Worker(forked_worker),
                }
            }
            self.accept();
        }
    }

    /// Sleeps until there may be something to do.
    fn wait(&self) -> Result<ParentAlive, Errno> {
        let mut sources = vec![PollFd::new(&self.parent.death, PollFlags::IN)];
        let mut timeout = None;
        if let Some(main) = &self.main {
            let wanted = if self.standby.is_announced() {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            };
            sources.push(PollFd::new(main, wanted));
            sources.extend(self.standby.source());
            timeout = self.standby.timeout();
        }
        sources.extend(self.orphans.iter().filter_map(Child::source));
        sources.extend(self.clients.iter().flat_map(Client::sources));
        let orphans = self.orphans.iter().filter_map(Child::wait);
        let dying = self.clients.iter().filter_map(Client::wait);
        let timeout = orphans.chain(dying).chain(timeout).min();
        // Rounded up, or the last moment would be spent awake.
        let timeout = timeout.and_then(|it| (it + Duration::from_millis(1)).try_into().ok());
        poll(&mut sources, timeout.as_ref())?;
        Ok(ParentAlive(sources[0].revents().is_empty()))
    }

    /// Takes a new pool's connection.
    fn accept(&mut self) {
        let Some(main) = &self.main else { return };
        match main.receive() {
            Received::Nothing => {}
            Received::End => self.main = None,
            Received::Message { bytes, descriptors } => {
                // A connection for which there was no room here is closed by now, and the pool
                // sees that.
                if bytes == CONNECT
                    && let Some(socket) = descriptors.into_iter().next()
                {
                    self.clients.push(Client::new(Socket::from(socket)));
                }
            }
        }
    }

    /// Kills all workers with all that their tasks have started.
    fn kill_all(&mut self) {
        for client in self.clients.drain(..) {
            self.orphans.extend(client.into_orphans());
        }
    }
}

/// Whether the process that this one serves is alive.
struct ParentAlive(bool);
