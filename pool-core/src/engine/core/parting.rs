//! Workers that do not die when they should: an outcome does not wait for a death.
//!
//! SIGKILL ends a process within microseconds, as a rule. One that is traced, frozen, or in a
//! system call that cannot be interrupted takes until somebody lets it go; and one that is dead
//! may be reaped late, by whoever has to do it. What was decided is delivered in time all the same,
//! and the worker's position gets another one. See "Deaths and outcomes" in
//! `README.md`.

use super::Core;
use crate::engine::death::Death;
use crate::engine::lifecycle::Setback;
use crate::engine::peer::Peer;
use crate::engine::slot_id::SlotId;
use crate::engine::terminating::Terminating;
use crate::engine::token::Token;
use crate::engine::worker_slot::{Phase, Released};
use crate::observe::worker_exit::WorkerExit;
use crate::process::exit_status::ExitStatus;
use crate::sys;

impl Core {
    /// A slot's worker was killed, or is dead: it should be gone soon.
    pub(in crate::engine) fn expect_death(&mut self, slot: SlotId, within_ns: u64) {
        let due = sys::now_ns() + within_ns;
        self.slots[slot].expect_death(due);
        // The supervisor keeps this time.
        self.has_errand = true;
    }

    /// When the supervisor has to see to workers that do not die, in nanoseconds; `u64::MAX`:
    /// there are none.
    pub(in crate::engine) fn next_farewell(&self) -> u64 {
        let ends = !self.end.is_open();
        let terminating = self.terminating.next_time(ends);
        let slots = self.slots.values().filter_map(|slot| {
            let due = slot.death_due()?;
            Some(due.min(slot.phase().asked_at()))
        });
        slots.fold(terminating, u64::min)
    }

    /// The workers that should be gone by now.
    pub(in crate::engine) fn overdue(&self, now: u64) -> Vec<Token> {
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
    pub(in crate::engine) fn poll_exits(&mut self, by: u64) {
        for slot in self.slots.ids() {
            if let Phase::Dying { process, .. } = self.slots[slot].phase()
                && process.is_asked(by)
            {
                self.died(slot);
            }
        }
        for number in self.terminating.to_be_asked(by) {
            self.died_late(number);
        }
    }

    /// A slot's worker is not gone though it should be. What it had gets its outcomes, and its
    /// position another worker; from now on it is one of those that are [`Terminating`].
    ///
    /// It runs nothing any more. A signal that kills is delivered before a process runs again,
    /// whatever holds it; and should the kill have been refused, it finds that all it had was
    /// taken back.
    pub(in crate::engine) fn part_from(&mut self, slot: SlotId) {
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
                let reason = self.reason_of_death(slot, exit, was_told_to_go, false);
                let begun = if self.scheduler.is_reclaimed(slot) {
                    channel.region().items_begun()
                } else {
                    channel.region().begin_reclaim()
                };
                let death = Death {
                    exit,
                    shortage: None,
                    refused: None,
                    unheard: self.slots[slot].unheard(),
                    stderr: process.stderr_tail(),
                    info: info.clone(),
                };
                // It has its descriptors as long as it is not dead.
                let peer = Peer::alive(&info, &process);
                self.take_back_items(slot, *channel, peer, begun, death, was_told_to_go);
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
        self.terminating.push(process, reason);
        self.make_way(slot);
        let setback = self.lifecycle.does_not_die(self.terminating.len());
        if let Setback::Pause(pause) = setback {
            self.slots[slot].launch_not_before(sys::now_ns() + pause);
        }
    }

    /// A worker that is [`Terminating`] may be gone.
    pub(in crate::engine) fn died_late(&mut self, number: u32) {
        if let Some((gone, exit)) = self.terminating.take_gone(number) {
            self.tell_of_late_death(&gone, exit);
        }
    }

    /// Those for which a pool that ends does not wait any longer. Their handles see to what is left
    /// of them when they are dropped.
    pub(in crate::engine) fn leave_behind(&mut self, now: u64) -> Vec<Terminating> {
        if self.end.is_open() {
            return Vec::new();
        }
        let left = self.terminating.take_given_up(now);
        for worker in &left {
            self.tell_of_late_death(worker, ExitStatus::Unknown);
        }
        left
    }

    fn tell_of_late_death(&mut self, worker: &Terminating, exit: ExitStatus) {
        if let (Some(reason), Some(info)) = (worker.reason(), worker.process().info()) {
            self.notify
                .worker_ended(info, WorkerExit::new(exit, reason));
        }
    }
}
