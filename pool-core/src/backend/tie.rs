//! The second tie between the parent and a worker, beside the parent-death signal.

use std::io;

use crate::passing::close_elsewhere;
use crate::sync::IS_MODEL;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::{self, Event};

/// The parent's end of a connection whose other end the worker has bound to its process group:
/// see [`bind_to_parent`](crate::worker::bind_to_parent). When this end is closed, by whatever end
/// of the parent, the kernel kills the group.
///
/// It does what [`WorkerHandle::kill`](crate::WorkerHandle::kill) does, in cases in which that
/// cannot: the parent may not signal the worker any more, because it has dropped its privileges;
/// the parent is gone; the worker is gone and what it has started is left, so that the group's
/// number is somebody else's perhaps. The kernel keeps the group itself, and not its number.
///
/// What the worker has bound is the open connection and not its descriptor of it. A copy of that
/// end lies unread in the queue of this one, so that it lasts as long as this one and a moment
/// longer: the kernel reports a hang-up before it throws the queue away. Therefore the worker can
/// neither lose the tie, nor does it end with the worker. That matters when the parent dies: its
/// threads end one after the other, and the parent-death signal, which comes with the end of one of
/// them, kills the worker before the last one has closed this end.
///
/// The worker finds its bell in the queue of its end: an event, which does not take part in what
/// has a name in `/proc`. Whoever may look into the parent's `/proc`, and that is each worker of
/// the same user, can open the parent's end of a pipe there and take bytes out of it, so that
/// another worker rings in vain. Events and sockets cannot be opened.
///
/// Behind the bell it finds its end of the socket by which descriptors are passed: see
/// [`passing`](crate::passing), and behind that, where its region's words do not do, what it hears
/// while it sleeps. The tie itself carries nothing, since whatever arrives there kills.
#[derive(Debug)]
pub(crate) struct Tie {
    end: OwnedFd,
    bell: Event,
    /// `None` while it is dropped.
    fd_socket: Option<OwnedFd>,
    wakeup: Option<OwnedFd>,
}

impl Tie {
    /// A tie, and the worker's end of it.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = sys::connected_pair()?;
        sys::leave_with_other_end(theirs.as_fd(), theirs.as_fd())?;
        let bell = Event::new()?;
        sys::leave_with_other_end(ours.as_fd(), bell.bell())?;
        let (fd_socket, to_worker) = sys::packet_pair()?;
        sys::leave_with_other_end(ours.as_fd(), to_worker.as_fd())?;
        let mut wakeup = None;
        if let Some((heard, bell)) = sys::wakeup()? {
            sys::leave_with_other_end(ours.as_fd(), heard.as_fd())?;
            wakeup = Some(bell);
        }
        let tie = Self {
            end: ours,
            bell,
            fd_socket: Some(fd_socket),
            wakeup,
        };
        Ok((tie, theirs))
    }

    /// What the worker rings, unless it has to take its doorbell. It is never silenced, so it is to
    /// be watched for each ring, and not for being readable.
    pub(crate) fn bell(&self) -> &Event {
        &self.bell
    }

    /// This process's end of the socket by which descriptors go to the worker, and come from it.
    pub(crate) fn fd_socket(&self) -> BorrowedFd<'_> {
        let socket = self.fd_socket.as_ref();
        socket.expect("only dropping takes it").as_fd()
    }

    /// What wakes the worker, where its [region](crate::Region::wake_by) needs it; once.
    pub(crate) fn take_wakeup(&mut self) -> Option<OwnedFd> {
        self.wakeup.take()
    }

    /// Kills the worker's process group, or lets the worker leave if it has not bound itself yet.
    ///
    /// Unlike dropping, this does so even if another process has a copy of this end: one that the
    /// program has forked without executing anything.
    pub(crate) fn cut(&self) {
        sys::hang_up(&self.end);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if let Some(socket) = self.fd_socket.take()
            && !IS_MODEL
            && sys::has_packets(socket.as_fd())
        {
            // What a worker has sent may take as long to be closed as it likes.
            close_elsewhere([socket]);
        }
    }
}
