//! One pool's connection to the fork server, as the parent sees it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use procpool_core::{ExitStatus, LaunchError, failed};
use rustix::event::epoll;
use rustix::io::Errno;

use crate::failover::ServerFailover;
use crate::message::{Reply, Request, WorkerStdio};
use crate::socket::{Received, Socket, above};
use crate::wait;

/// One pool's connection to the fork server, shared by the launcher and its links. When the last
/// of them is dropped, the server kills what is left of the pool's workers.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// The launcher's epoll instance, which watches the socket only while somebody waits for an
    /// answer. So it is never readable without a reason: not for an answer that nobody wants any
    /// more, and not forever once the server has died.
    notifier: Arc<OwnedFd>,
    state: Mutex<State>,
    /// Which of the failover is at the other end.
    epoch: u64,
    /// After the socket, which is to be closed before the server is waited for.
    failover: Arc<ServerFailover>,
}

#[derive(Debug, Default)]
struct State {
    /// How many launches there were, ever.
    launches: u64,
    /// Launches that were sent, and neither answered nor given up.
    unanswered: HashSet<u64>,
    /// What could not be sent yet.
    outbox: VecDeque<(Request, Vec<OwnedFd>)>,
    /// Why it could not.
    blocked: Option<Errno>,
    /// The launches whose end was asked for, with the answer.
    asked: HashMap<u64, Option<ExitStatus>>,
    /// What the notifier watches the socket for.
    watched: Option<epoll::EventFlags>,
    /// Whether the server has closed the connection.
    gone: bool,
}

impl Connection {
    /// A connection to the process that serves now; waits for a moment if the server is dying. The
    /// notifier is readable when [`reap`](Self::reap) should be asked again.
    pub(crate) fn open(
        failover: Arc<ServerFailover>,
        notifier: Arc<OwnedFd>,
    ) -> Result<Self, LaunchError> {
        wait::until_ready(|| Self::try_open(&failover, &notifier))
    }

    fn try_open(
        failover: &Arc<ServerFailover>,
        notifier: &Arc<OwnedFd>,
    ) -> Poll<Result<Self, LaunchError>> {
        let (socket, theirs) = Socket::pair().map_err(|(call, errno)| refused(call)(errno))?;
        let Poll::Ready(epoch) = failover.connect(&theirs)? else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(Self {
            socket,
            notifier: Arc::clone(notifier),
            state: Mutex::default(),
            epoch,
            failover: Arc::clone(failover),
        }))
    }

    /// The same, if the server at the other end has died: a connection to the one in its place. An
    /// error that says so if it is dying.
    pub(crate) fn reopen(&self) -> Result<Self, LaunchError> {
        match Self::try_open(&self.failover, &self.notifier) {
            Poll::Ready(connection) => connection,
            Poll::Pending => Err(is_dying()),
        }
    }

    /// Asks for a worker with this name, and with the descriptors of its stdio, and answers the
    /// launch's number. The server answers through the doorbell, or by closing it. Nobody was able
    /// to launch anything since `refused_since`.
    pub(crate) fn launch(
        &self,
        name: String,
        stdio: WorkerStdio,
        given: Vec<OwnedFd>,
        refused_since: Instant,
    ) -> Result<u64, LaunchError> {
        self.failover.hear();
        let mut state = self.lock();
        let launch = state.launches;
        state.launches += 1;
        let request = Request::Launch {
            launch,
            stdio,
            name,
        };
        state.outbox.push_back((request, given));
        self.exchange(&mut state);
        if state.gone {
            drop(state);
            return Err(match self.gone(refused_since) {
                Poll::Ready(error) => error,
                Poll::Pending => is_dying(),
            });
        }
        // What waits in the outbox is sent when the server has answered something. If there is
        // nothing to be answered, nothing would ever come.
        if let Some(errno) = state.blocked
            && state.unanswered.is_empty()
            && state.asked.is_empty()
        {
            state.outbox.pop_back();
            return Err(LaunchError::new(
                "the request for a worker cannot be sent to the fork server",
            )
            .caused_by(failed("sendmsg")(errno)));
        }
        Ok(launch)
    }

    /// To be notified when the server has answered a launch through its doorbell.
    pub(crate) fn answered(&self, launch: u64) {
        self.failover.has_served(self.epoch);
        let mut state = self.lock();
        state.unanswered.remove(&launch);
        self.exchange(&mut state);
    }

    /// Kills and reaps a worker. Asked again until the answer is not `Pending`.
    pub(crate) fn reap(&self, launch: u64) -> Poll<ExitStatus> {
        let mut state = self.lock();
        if let Entry::Vacant(asked) = state.asked.entry(launch) {
            asked.insert(None);
            let request = Request::Reap { launch };
            state.outbox.push_back((request, Vec::new()));
        }
        self.exchange(&mut state);
        let status = match state.asked[&launch] {
            None if state.gone => Some(ExitStatus::Orphaned),
            status => status,
        };
        let Some(status) = status else {
            return Poll::Pending;
        };
        state.asked.remove(&launch);
        self.watch(&mut state);
        Poll::Ready(status)
    }

    /// Gives a launch up: kills and reaps the worker, however far it is, about which nobody wants
    /// to know more.
    pub(crate) fn forget(&self, launch: u64) {
        let mut state = self.lock();
        state.unanswered.remove(&launch);
        let requests = state.outbox.len();
        state.outbox.retain(
            |(request, _)| !matches!(request, Request::Launch { launch: other, .. } if *other == launch),
        );
        let sent = state.outbox.len() == requests;
        let asked = state.asked.remove(&launch).is_some();
        if sent && !asked {
            let request = Request::Forget { launch };
            state.outbox.push_back((request, Vec::new()));
        }
        self.exchange(&mut state);
    }

    /// Whether the server is still at the other end. While it is, it has reaped no worker but
    /// those it was asked for, and their process identifiers stand for them.
    pub(crate) fn is_open(&self) -> bool {
        !self.socket.is_hung_up() && self.failover.is_alive(self.epoch)
    }

    /// Whether the server is dead, so that its workers have another parent. Its end of the
    /// connection is closed a moment before.
    pub(crate) fn is_server_dead(&self) -> bool {
        self.failover.is_dead(self.epoch)
    }

    /// Why the server has closed, at `since`, the connection, or the doorbell of a launch. To be
    /// asked again as long as that is not known.
    pub(crate) fn gone(&self, since: Instant) -> Poll<LaunchError> {
        let no_room = if self.socket.is_hung_up() {
            "this pool's connection"
        } else {
            "a worker's descriptors"
        };
        self.failover.gone(self.epoch, no_room, since)
    }

    /// Whether this value came into this process by a fork: then it stands for nothing here.
    pub(crate) fn is_inherited(&self) -> bool {
        self.failover.is_inherited()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics leaves the state in disorder.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what can be sent, takes the answers that are there, and sets the notifier.
    fn exchange(&self, state: &mut State) {
        self.send(state);
        // After sending, since an error of that means that the server has closed the connection,
        // and what it had sent before is all that will come.
        self.receive(state);
        if state.gone {
            // The doorbells among it are closed, and so those who wait for a hello learn of it.
            state.outbox.clear();
        }
        self.watch(state);
    }

    fn send(&self, state: &mut State) {
        state.blocked = None;
        while let Some((request, descriptors)) = state.outbox.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.socket.send(&request.encode(), &borrowed) {
                Ok(()) => {
                    if let Request::Launch { launch, .. } = request {
                        state.unanswered.insert(*launch);
                    }
                    state.outbox.pop_front();
                }
                Err(errno @ (Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM)) => {
                    state.blocked = Some(errno);
                    return;
                }
                Err(_) => {
                    state.gone = true;
                    return;
                }
            }
        }
    }

    fn receive(&self, state: &mut State) {
        loop {
            match self.socket.receive() {
                Received::Nothing => return,
                Received::End => {
                    state.gone = true;
                    return;
                }
                Received::Message { bytes, .. } => {
                    if let Some(Reply { launch, status }) = Reply::decode(&bytes)
                        && let Some(answer) = state.asked.get_mut(&launch)
                    {
                        *answer = Some(status);
                    }
                }
            }
        }
    }

    /// Makes the notifier readable exactly when asking again makes sense. If the system refuses
    /// that, it is tried again with the next exchange: the engine asks now and then anyway.
    fn watch(&self, state: &mut State) {
        let wanted = if state.asked.is_empty() {
            None
        } else if state.blocked == Some(Errno::AGAIN) || state.asked.values().any(Option::is_some) {
            // An answer that came together with another worker's is not in the socket any more.
            // Writable the socket practically always is.
            Some(epoll::EventFlags::IN | epoll::EventFlags::OUT)
        } else {
            Some(epoll::EventFlags::IN)
        };
        let data = epoll::EventData::new_u64(0);
        let done = match (state.watched, wanted) {
            (None, None) => Ok(()),
            (Some(watched), Some(wanted)) if watched == wanted => Ok(()),
            (None, Some(wanted)) => epoll::add(&*self.notifier, &self.socket, data, wanted),
            (Some(_), Some(wanted)) => epoll::modify(&*self.notifier, &self.socket, data, wanted),
            (Some(_), None) => epoll::delete(&*self.notifier, &self.socket),
        };
        if done.is_ok() {
            state.watched = wanted;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Not merely closed: a process forked from this one may hold a copy. In such a process,
        // only the copy goes.
        if !self.is_inherited() {
            self.socket.shut_down();
            // It outlives the socket, which a copy could keep in it.
            let _ = epoll::delete(&*self.notifier, &self.socket);
        }
    }
}

/// The launchers' notifier: see [`Connection::open`].
pub(crate) fn make_notifier() -> Result<OwnedFd, LaunchError> {
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused("epoll_create1"))?;
    above(instance).map_err(refused("fcntl(F_DUPFD_CLOEXEC)"))
}

/// What a launch meets for a moment.
pub(crate) fn is_dying() -> LaunchError {
    LaunchError::new("the fork server is dying").from_lost_fork_server()
}

fn refused(call: &'static str) -> impl Fn(Errno) -> LaunchError {
    move |errno| {
        LaunchError::new("cannot connect a pool to the fork server").caused_by(failed(call)(errno))
    }
}
