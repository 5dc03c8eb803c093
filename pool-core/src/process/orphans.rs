//! What a dead worker has left to the parent.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How often somebody is asked for orphans that are dying. The engine asks ever more seldom, and
/// half a second goes by with that: less than an outcome waits for the news of a death.
const TRIES: u32 = 9;

/// The orphans of a worker: what its tasks have started, and what was killed with its process
/// group. The system gives them to the next process above that has said that it reaps such
/// (`PR_SET_CHILD_SUBREAPER`), or to process 1. Where that is the parent, they are its children,
/// and zombies forever unless it reaps them. Elsewhere, the system finds no child in the group.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Orphans {
    tries: u32,
    /// Whether none are left, or those that are left were given up.
    are_over: bool,
}

impl Orphans {
    /// Reaps the children of this process that are dead and in a group that was killed, and no
    /// others. `true`: there is nothing to ask for again.
    ///
    /// The first time, the worker must be dead, so that its children are somebody else's by now;
    /// and not reaped, so that the number is its group's. If one of them lives, the number stays
    /// the group's until that one is reaped here.
    pub fn reap(&mut self, group: Pid) -> bool {
        while !self.are_over {
            match waitid(
                WaitId::Pgid(Some(group)),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            ) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => {
                    self.tries += 1;
                    self.are_over = self.tries >= TRIES;
                    return self.are_over;
                }
                // There are none, or a sandbox does not let anybody ask.
                Err(_) => self.are_over = true,
            }
        }
        true
    }

    /// Whether there is nothing to ask for again.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.are_over
    }

    /// Whether some were found that had yet to die: until these are reaped, the number is their
    /// group's.
    #[must_use]
    pub fn are_dying(&self) -> bool {
        self.tries > 0 && !self.are_over
    }

    /// There are none that could be asked for.
    pub fn give_up(&mut self) {
        self.are_over = true;
    }
}
