//! Workers that do not die when they should: an outcome does not wait for a death.
//!
//! SIGKILL ends a process within microseconds, as a rule. One that is traced, frozen, or in a
//! system call that cannot be interrupted takes until somebody lets it go; and one that is dead
//! may be reaped late, by whoever has to do it. What was decided is delivered in time all the same,
//! and the worker's position gets another one. See "Deaths and outcomes" in
//! `README.md`.

use std::task::Poll;
use std::time::Duration;

use super::core::{Core, End, nanoseconds};
use super::lifecycle::Setback;
use super::peer::Peer;
use super::slot_id::SlotId;
use super::worker_slot::{Phase, Released};
use super::workers::Death;
use super::{Process, Token};
use crate::observe::worker_exit::{ExitReason, WorkerExit};
use crate::process::exit_status::ExitStatus;
use crate::process::zombie;
use crate::sync::thread;
use crate::sys;

/// How long after it was killed a worker may take to be gone before its tasks get their outcomes
/// without that, in nanoseconds.
pub(super) const AFTER_KILL_NS: u64 = 100_000_000;
/// The same after a death that nobody ordered. How it ended is what its tasks' errors have to say,
/// and on a busy machine it takes a while until every process that has to report that had a
/// processor.
pub(super) const AFTER_DEATH_NS: u64 = 1_000_000_000;
/// How long after that a pool that ends waits for it.
pub(super) const WAIT: Duration = Duration::from_secs(3);
/// How soon a worker is asked again how it ended, in nanoseconds, first and at most.
const ASK_AGAIN_NS: u64 = 1_000_000;
const ASK_SELDOM_NS: u64 = 1_000_000_000;

/// A worker whose tasks have their outcomes, and that is not gone. It runs nothing any more.
pub(super) struct Terminating {
    pub(super) process: Process,
    /// Why it ends. `None`: it was never reached.
    reason: Option<ExitReason>,
    /// When a pool that ends does not wait for it any more, in nanoseconds.
    pub(super) give_up: u64,
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

impl Process {
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
    fn status_so_far(&self) -> ExitStatus {
        let ended = self.handle.pid().zip(self.handle.exit_fd());
        ended
            .and_then(|(pid, pidfd)| zombie::exit_status(pid, pidfd))
            .unwrap_or(ExitStatus::Unknown)
    }

    /// Whether it is gone. How it ended is not reported.
    fn is_gone(&mut self) -> bool {
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

    /// When it is to be asked how it ended, or how far its launch is, in nanoseconds; `u64::MAX`:
    /// not yet.
    pub(super) fn asked_at(&self) -> u64 {
        self.ask_again.map_or(u64::MAX, |again| again.at)
    }
}

impl Phase {
    /// When a slot's worker is to be asked how it ended, in nanoseconds; `u64::MAX`: not yet.
    pub(super) fn asked_at(&self) -> u64 {
        self.process().map_or(u64::MAX, Process::asked_at)
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

impl Core {
    /// A slot's worker was killed, or is dead: it should be gone soon.
    pub(super) fn expect_death(&mut self, slot: SlotId, within_ns: u64) {
        let due = sys::now_ns() + within_ns;
        self.slots[slot].expect_death(due);
        // The supervisor keeps this time.
        self.has_errand = true;
    }

    /// When the supervisor has to see to workers that do not die, in nanoseconds; `u64::MAX`:
    /// there are none.
    pub(super) fn next_farewell(&self) -> u64 {
        let ends = !matches!(self.end, End::Open);
        let terminating = self.terminating.iter().map(|it| {
            let asked = it.process.asked_at();
            if ends { asked.min(it.give_up) } else { asked }
        });
        let slots = self.slots.values().filter_map(|slot| {
            let due = slot.death_due()?;
            Some(due.min(slot.phase().asked_at()))
        });
        slots.chain(terminating).min().unwrap_or(u64::MAX)
    }

    /// The workers that should be gone by now.
    pub(super) fn overdue(&self, now: u64) -> Vec<Token> {
        let slots = self.slots.iter();
        let overdue = slots.filter(|(_, slot)| slot.death_due().is_some_and(|due| due <= now));
        overdue
            .filter_map(|(index, slot)| {
                let number = slot.phase().process()?.number;
                Some(Token {
                    slot: index,
                    number,
                })
            })
            .collect()
    }

    /// Asks how those ended that are due by this time, in nanoseconds.
    pub(super) fn poll_exits(&mut self, by: u64) {
        let is_due = |process: &Process| process.ask_again.is_some_and(|again| again.at <= by);
        for slot in self.slots.ids() {
            if let Phase::Dying { process, .. } = self.slots[slot].phase()
                && is_due(process)
            {
                self.died(slot);
            }
        }
        let asked: Vec<u32> = self
            .terminating
            .iter()
            .filter(|it| is_due(&it.process))
            .map(|it| it.process.number)
            .collect();
        for number in asked {
            self.died_late(number);
        }
    }

    /// A slot's worker is not gone though it should be. What it had gets its outcomes, and its
    /// position another worker; from now on it is one of those that are [`Terminating`].
    ///
    /// It runs nothing any more. A signal that kills is delivered before a process runs again,
    /// whatever holds it; and should the kill have been refused, it finds that all it had was
    /// taken back.
    pub(super) fn part_from(&mut self, slot: SlotId) {
        let Some(released) = self.slots[slot].let_go() else {
            return;
        };
        let Released {
            mut process,
            channel,
            was_dying,
        } = released;
        let exit = was_dying.then(|| process.status_so_far());
        let was_told_to_go = self.scheduler.is_retiring(slot) && !self.slots[slot].is_killed();
        let reason = match (channel, process.info().cloned()) {
            (Some(channel), Some(info)) => {
                if !was_told_to_go {
                    self.notify.worker_lost();
                }
                let reason = self.reason_of_death(slot, was_told_to_go);
                let begun = if self.scheduler.is_reclaimed(slot) {
                    channel.region().items_begun()
                } else {
                    channel.region().begin_reclaim()
                };
                let death = Death {
                    exit,
                    stderr: process.stderr_tail(),
                    info: info.clone(),
                };
                // It has its descriptors as long as it is not dead.
                let peer = Peer::alive(&info, &*process.handle);
                self.settle_items(slot, *channel, peer, begun, death, was_told_to_go);
                Some(reason)
            }
            _ => {
                self.exited_before_ready(slot, &mut process, exit);
                None
            }
        };
        if exit.is_none() && !process.is_watched {
            // Nobody will be notified of its death.
            process.is_to_be_asked_again();
        }
        self.terminating.push(Terminating {
            process,
            reason,
            give_up: sys::now_ns() + nanoseconds(WAIT),
        });
        self.make_way(slot);
        let setback = self.lifecycle.does_not_die(self.terminating.len());
        if let Setback::Pause(pause) = setback {
            self.slots[slot].launch_not_before(sys::now_ns() + pause);
        }
    }

    /// A worker that is [`Terminating`] may be gone.
    pub(super) fn died_late(&mut self, number: u32) {
        let Some(at) = self
            .terminating
            .iter()
            .position(|it| it.process.number == number)
        else {
            return;
        };
        if let Poll::Ready(exit) = self.terminating[at].process.reap() {
            let gone = self.terminating.swap_remove(at);
            self.tell_of_late_death(&gone, exit);
        }
    }

    /// Those for which a pool that ends does not wait any longer. Their handles see to what is left
    /// of them when they are dropped.
    pub(super) fn leave_behind(&mut self, now: u64) -> Vec<Terminating> {
        if matches!(self.end, End::Open) {
            return Vec::new();
        }
        let left = self.terminating.extract_if(.., |it| it.give_up <= now);
        let left: Vec<Terminating> = left.collect();
        for worker in &left {
            self.tell_of_late_death(worker, ExitStatus::Unknown);
        }
        left
    }

    fn tell_of_late_death(&mut self, worker: &Terminating, exit: ExitStatus) {
        if let (Some(reason), Some(info)) = (worker.reason, worker.process.info()) {
            self.notify
                .worker_ended(info, WorkerExit::new(exit, reason));
        }
    }
}
