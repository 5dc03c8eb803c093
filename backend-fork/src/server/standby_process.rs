//! What runs in a standby.

use procpool_core::poll;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::parent::{Parent, SERVER_NAME, heed_parent};
use crate::message::SERVE;
use crate::socket::{Received, Socket};

/// A process that was just forked to be the standby of its server. It sleeps until the parent calls
/// it or is gone.
#[derive(Debug)]
pub(super) struct StandbyProcess {
    parent: Parent,
    main: Socket,
}

impl StandbyProcess {
    pub(super) fn new(parent: Parent, main: Socket) -> Self {
        Self { parent, main }
    }

    /// Waits to be called, and is to be the server from then on, with this parent and main socket.
    /// `None`: there is nobody left to serve.
    ///
    /// That the server dies is no reason to wake: only the parent knows whether it wants another.
    pub(super) fn wait(self) -> Option<(Parent, Socket)> {
        procpool_core::after_fork_in_child();
        heed_parent();
        let _ = rustix::thread::set_name(c"procpool-new");
        loop {
            match self.main.receive() {
                Received::Nothing => {}
                Received::End => return None,
                Received::Message { bytes, .. } if bytes == SERVE => break,
                // The kernel keeps no more than fifteen bytes of a name.
                Received::Message { .. } => {
                    let _ = rustix::thread::set_name(c"procpool-spare");
                }
            }
            let mut sources = [
                PollFd::new(&self.parent.death, PollFlags::IN),
                PollFd::new(&self.main, PollFlags::IN),
            ];
            match poll(&mut sources, None) {
                Ok(_) if sources[0].revents().is_empty() => {}
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => return None,
            }
        }
        let _ = rustix::thread::set_name(SERVER_NAME);
        Some((self.parent, self.main))
    }
}
