//! How a worker wakes its parent.

use std::mem::ManuallyDrop;

use crate::sys;
use crate::sys::fd::{AsFd, OwnedFd};

/// What a worker wakes its parent by.
pub(crate) struct Ringer {
    /// See [`Tie`](crate::backend::tie::Tie).
    bell: Option<OwnedFd>,
    /// `None`: it is closed.
    doorbell: Option<OwnedFd>,
    /// By which it is known whether that number still is the doorbell.
    inode: Option<(u64, u64)>,
}

impl Ringer {
    pub(crate) fn new(bell: Option<OwnedFd>, doorbell: OwnedFd) -> Self {
        Self {
            bell,
            inode: sys::inode(doorbell.as_fd()),
            doorbell: Some(doorbell),
        }
    }

    /// `false`: the parent cannot be woken; it hears that this worker has hung up.
    pub(super) fn ring(&mut self) -> bool {
        let bell = self.bell.as_ref();
        let rings = bell.is_some_and(|bell| sys::ring_bell(bell.as_fd()));
        if !rings {
            self.hang_up();
        }
        rings
    }

    /// A task has closed the bell, and perhaps the doorbell: then its number is nobody's, or that
    /// of a file of the task's.
    #[cold]
    fn hang_up(&mut self) {
        if let Some(doorbell) = self.doorbell.take()
            && (self.inode.is_none() || sys::inode(doorbell.as_fd()) != self.inode)
        {
            let _not_ours = ManuallyDrop::new(doorbell);
        }
    }
}
