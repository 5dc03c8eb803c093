//! A worker process as the parent holds it: its handle, its tie, and what is known of it.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::capture::WorkerPipes;
use super::time_limits::WAIT;
use crate::backend::launcher::WorkerHandle;
use crate::backend::tie::Tie;
use crate::error::launch_error::LaunchError;
use crate::process::exit_status::ExitStatus;
use crate::process::worker_info::WorkerInfo;
use crate::process::zombie;
use crate::shm::region::Region;
use crate::sync::thread;
use crate::sys;

/// How soon a worker is asked again how it ended, in nanoseconds, first and at most.
const ASK_AGAIN_NS: u64 = 1_000_000;
const ASK_SELDOM_NS: u64 = 1_000_000_000;

/// A worker process that belongs to a slot.
pub(super) struct Process {
    pub(super) handle: Box<dyn WorkerHandle>,
    /// The other way to kill it. Kept until it is reaped.
    pub(super) tie: Tie,
    pub(super) number: u32,
    pub(super) seed: u64,
    pub(super) info: Option<WorkerInfo>,
    /// Why its launch failed.
    pub(super) failure: Option<LaunchError>,
    /// Whether its death is being watched.
    pub(super) is_watched: bool,
    /// When to ask again how it ended, if that has been asked in vain.
    pub(super) ask_again: Option<AskAgain>,
    /// What it writes, if that is captured.
    pub(super) pipes: Option<WorkerPipes>,
}

impl Process {
    pub(super) fn info(&self) -> Option<&WorkerInfo> {
        self.info.as_ref()
    }

    /// The last lines that it has written to standard error, as far as they were read.
    pub(super) fn stderr_tail(&self) -> Option<String> {
        self.pipes.as_ref().and_then(WorkerPipes::stderr_tail)
    }

    /// Kills the worker and its process group. Either way may fail, the handle's where the system
    /// refuses the signal, and the tie where the worker has lost its end; so both are taken.
    pub(super) fn kill(&mut self) {
        self.handle.kill();
        self.tie.cut();
    }

    pub(super) fn learn_pid(&mut self, generation: u32, region: &Arc<Region>) -> WorkerInfo {
        let pid = self.handle.pid().unwrap_or(0);
        let info = WorkerInfo::new(self.number, generation, pid).with_seed(self.seed);
        if let Some(pipes) = &self.pipes {
            pipes.introduce(info.clone(), region.clone());
        }
        self.info.insert(info).clone()
    }

    /// Takes the exit status, if it is there; otherwise it will be asked for again.
    pub(super) fn reap(&mut self) -> Poll<ExitStatus> {
        let reaped = self.handle.reap();
        match reaped {
            Poll::Pending => self.is_to_be_asked_again(),
            Poll::Ready(_) => self.ask_again = None,
        }
        reaped
    }

    /// How it ended that is dead, and whose status nobody has told so far: whoever has to reap it
    /// may be late, or stopped, or a debugger.
    pub(super) fn status_so_far(&self) -> ExitStatus {
        let ended = self.handle.pid().zip(self.handle.exit_fd());
        ended
            .and_then(|(pid, pidfd)| zombie::exit_status(pid, pidfd))
            .unwrap_or(ExitStatus::Unknown)
    }

    /// Whether it is gone. How it ended is not reported.
    pub(super) fn is_gone(&mut self) -> bool {
        let death = self.handle.exit_fd();
        let lives = death.is_some_and(|death| sys::has_ended(death).is_ok_and(|ended| !ended));
        !lives && self.handle.reap() != Poll::Pending
    }

    /// It had no answer yet.
    pub(super) fn is_to_be_asked_again(&mut self) {
        self.ask_again = Some(AskAgain::after(self.ask_again, sys::now_ns()));
    }

    /// Whether it is to be asked again: of one that is starting, that its doorbell is closed.
    pub(super) fn is_hung_up(&self) -> bool {
        self.ask_again.is_some()
    }

    /// Whether it is to be asked by this time, in nanoseconds.
    pub(super) fn is_asked(&self, by: u64) -> bool {
        self.ask_again.is_some_and(|again| again.at <= by)
    }

    /// When it is to be asked how it ended, or how far its launch is, in nanoseconds; `u64::MAX`:
    /// not yet.
    pub(super) fn asked_at(&self) -> u64 {
        self.ask_again.map_or(u64::MAX, |again| again.at)
    }
}

/// When a question without an answer is asked again, in nanoseconds: ever more seldom.
#[derive(Debug, Clone, Copy)]
pub(super) struct AskAgain {
    pub(super) at: u64,
    pause: u64,
}

impl AskAgain {
    /// After one more answer that was none.
    fn after(last: Option<Self>, now: u64) -> Self {
        let pause = last.map_or(ASK_AGAIN_NS, |last| (last.pause * 2).min(ASK_SELDOM_NS));
        Self {
            at: now + pause,
            pause,
        }
    }
}

/// Waits until all of these are gone, which were killed, as a pool that ends does: without a
/// poller, for those that it cannot wait with.
pub(super) fn outlive(mut killed: Vec<Process>) {
    let give_up = sys::now() + WAIT;
    let mut again = AskAgain::after(None, 0);
    loop {
        killed.retain_mut(|worker| !worker.is_gone());
        if killed.is_empty() || sys::now() >= give_up {
            return;
        }
        thread::park_timeout(Duration::from_nanos(again.pause));
        again = AskAgain::after(Some(again), 0);
    }
}
