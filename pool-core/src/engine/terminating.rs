//! Workers that do not die when they should, and are in no slot any more. See "Deaths and outcomes"
//! in `README.md`.

use std::task::Poll;

use super::time_limits::{WAIT, nanoseconds};
use super::worker_process::Process;
use crate::observe::worker_exit::ExitReason;
use crate::process::exit_status::ExitStatus;
use crate::sys;

/// A worker whose tasks have their outcomes, and that is not gone. It runs nothing any more.
pub(super) struct Terminating {
    process: Process,
    /// Why it ends. `None`: it was never reached.
    reason: Option<ExitReason>,
    /// When a pool that ends does not wait for it any more, in nanoseconds.
    give_up: u64,
}

impl Terminating {
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Why it ends. `None`: it was never reached.
    pub(super) fn reason(&self) -> Option<ExitReason> {
        self.reason
    }
}

/// All of a pool.
#[derive(Default)]
pub(super) struct TerminatingWorkers(Vec<Terminating>);

impl TerminatingWorkers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.0.iter().map(Terminating::process)
    }

    /// One more.
    pub(super) fn push(&mut self, process: Process, reason: Option<ExitReason>) {
        self.0.push(Terminating {
            process,
            reason,
            give_up: sys::now_ns().saturating_add(nanoseconds(WAIT)),
        });
    }

    /// When one of them has to be asked how it ended, or, if the pool `ends`, is not to be waited
    /// for any longer, in nanoseconds; `u64::MAX`: never.
    pub(super) fn next_time(&self, ends: bool) -> u64 {
        let times = self.0.iter().map(|it| {
            let asked = it.process.asked_at();
            if ends { asked.min(it.give_up) } else { asked }
        });
        times.min().unwrap_or(u64::MAX)
    }

    /// The numbers of those that are to be asked by this time, in nanoseconds.
    pub(super) fn to_be_asked(&self, by: u64) -> Vec<u32> {
        let asked = self.processes().filter(|process| process.is_asked(by));
        asked.map(|process| process.number).collect()
    }

    /// The worker with this number, and how it ended, if it is gone.
    pub(super) fn take_gone(&mut self, number: u32) -> Option<(Terminating, ExitStatus)> {
        let is_it = |it: &Terminating| it.process.number == number;
        let at = self.0.iter().position(is_it)?;
        match self.0[at].process.reap() {
            Poll::Ready(exit) => Some((self.0.swap_remove(at), exit)),
            Poll::Pending => None,
        }
    }

    /// Those for which a pool that ends does not wait any longer.
    pub(super) fn take_given_up(&mut self, now: u64) -> Vec<Terminating> {
        self.0.extract_if(.., |it| it.give_up <= now).collect()
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Process> {
        self.0.drain(..).map(|it| it.process)
    }
}
