//! The life of a pool's workers: launched, reached, dead, replaced.

use std::sync::Arc;
use std::task::Poll;

use super::Core;
use super::{Process, Token};
use crate::backend::launcher::Readiness;
use crate::engine::death::{Death, fate, is_own_end};
use crate::engine::launch::Due;
use crate::engine::lifecycle::Setback;
use crate::engine::parent_channel::ParentChannel;
use crate::engine::peer::Peer;
use crate::engine::positions::PositionId;
use crate::engine::refused_call::FatalCall;
use crate::engine::slot_id::SlotId;
use crate::engine::time_limits::GRACE_NS;
use crate::engine::time_limits::nanoseconds;
use crate::engine::time_limits::{AFTER_DEATH_NS, AFTER_KILL_NS};
use crate::engine::worker_slot::{Departure, Killed, Phase, Released, Setup, Unheard};
use crate::error::launch_error::LaunchError;
use crate::error::task_error::{Shortage, TaskError, TaskErrorKind};
use crate::observe::worker_exit::{ExitReason, WorkerExit};
use crate::process::exit_status::ExitStatus;
use crate::process::oom_killer;
use crate::shm::region::Region;
use crate::sync::atomic::Ordering;
use crate::sys;
use crate::sys::Signal;

/// How long a launch waits that has met a dying starter a second time in a row, in nanoseconds; the
/// next ones wait twice as long each, up to a tenth of a second.
const LOST_STARTER_NS: u64 = 50_000;
/// How soon a disconnected worker is polled again, which cannot ring, in nanoseconds: at least, and
/// at most.
const POLL_NS: u64 = 500_000;
const MAX_POLL_NS: u64 = 20_000_000;
impl Core {
    /// The launches that are due, each with the slot that it is for.
    pub(in crate::engine) fn due_launches(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        if self.end.has_ended() {
            return due;
        }
        self.has_errand = false;
        let now = sys::now_ns();
        for (index, slot) in self.slots.iter_mut() {
            let ready = matches!(slot.phase(), Phase::Down { not_before } if *not_before <= now);
            if ready
                && let Some(position) = slot.position()
                && self.scheduler.wants_worker()
            {
                let (number, generation) = self.lifecycle.launch(position);
                slot.launch(number, generation);
                due.push(Due {
                    slot: index,
                    number,
                    generation,
                    rings: self.config.rings,
                    environment: self.config.lifecycle.environment.clone(),
                });
            }
        }
        due
    }

    /// A worker process is on its way; in vain, if it has failed already.
    pub(in crate::engine) fn launched(&mut self, slot: SlotId, process: Process) {
        let is_in_vain = process.failure.is_some();
        self.notify.worker_launched();
        let give_up = sys::now_ns().saturating_add(nanoseconds(self.config.launch_timeout));
        self.slots[slot].start(process, give_up);
        if is_in_vain {
            self.kill(slot, Killed::Silent);
        } else if self.end.has_ended() {
            self.kill(slot, Killed::Cancelled);
        }
    }

    /// A worker process could not be started.
    pub(in crate::engine) fn launch_failed(&mut self, slot: SlotId, error: &LaunchError) {
        self.slots[slot].launch_failed();
        if self.slots[slot].position().is_none() {
            // It was to go anyway.
            self.make_way(slot);
            return;
        }
        if error.is_lost_fork_server() {
            // At once. Only a slow death is asked for several times.
            let losses = self.slots[slot].lost_starter();
            if losses > 1 {
                let pause = LOST_STARTER_NS << (losses - 2).min(11);
                self.slots[slot].launch_not_before(sys::now_ns() + pause);
            }
            return;
        }
        if self.lifecycle.fail_startup(|| error.clone().into()) {
            self.end(TaskError::new(TaskErrorKind::Launch, error.to_string()));
        } else if self.do_without_successor(slot) || self.stay_smaller(slot) {
            return;
        }
        let reason = TaskError::new(
            TaskErrorKind::Launch,
            format!("no worker can be started: {error}"),
        );
        self.startup_failed(slot, reason);
    }

    /// A worker did not come so far that it could run a task.
    pub(in crate::engine) fn startup_failed(&mut self, slot: SlotId, reason: TaskError) {
        let setback = self.lifecycle.start_failed(self.slots[slot].number());
        self.suffer(slot, setback, || reason);
    }

    /// A slot's worker has failed, and that means this for the next one, or for the pool, which
    /// ends for this reason then.
    fn suffer(&mut self, slot: SlotId, setback: Setback, reason: impl FnOnce() -> TaskError) {
        match setback {
            Setback::None => {}
            Setback::Pause(pause) => {
                self.slots[slot].launch_not_before(sys::now_ns() + pause);
            }
            Setback::GiveUp => self.end(reason()),
        }
    }

    /// A starting worker's doorbell is readable. Says whether the worker was reached by this.
    pub(in crate::engine) fn advance(&mut self, slot: SlotId) -> bool {
        if self.slots[slot].is_killed() {
            return false;
        }
        let Some((process, _)) = self.slots[slot].starting_mut() else {
            return false;
        };
        match process.handle.poll_ready() {
            Ok(Readiness::Pending) => false,
            Ok(Readiness::HungUp) => {
                process.is_to_be_asked_again();
                false
            }
            Ok(Readiness::Ready) => {
                // Once and for all: the handle may say something else the next time.
                let region = process.handle.region();
                if region.claim(self.config.rings) {
                    let limit = &region.words().advice.max_result;
                    limit.store(self.config.max_result_bytes, Ordering::Relaxed);
                    self.reached(slot, region);
                    return true;
                }
                process.failure = Some(LaunchError::new(
                    "the backend has given a region that is not of the size of this launch, or \
                     that another worker has",
                ));
                self.kill(slot, Killed::Silent);
                false
            }
            Err(error) => {
                process.failure = Some(error);
                self.kill(slot, Killed::Silent);
                false
            }
        }
    }

    fn reached(&mut self, slot: SlotId, region: Arc<Region>) {
        let rings = self.config.rings;
        let generation = self.slots[slot].generation();
        let Some((process, _)) = self.slots[slot].starting_mut() else {
            return;
        };
        let info = process.learn_pid(generation, &region);
        let position = self.slots[slot].position();
        let number = position.map_or(slot.index(), PositionId::index);
        self.notify.worker_reached(number, &info);
        let mut channel = ParentChannel::new(region, rings);
        channel.limit_results(self.config.max_result_bytes);
        self.slots[slot].reach(channel, sys::now_ns());
        self.scheduler.up(slot);
        match position {
            Some(position) => self.lifecycle.reached(position),
            None => self.send_away(slot),
        }
        if self.is_successor(slot) {
            self.scheduler.reserve(slot);
        }
        self.prepare(slot);
    }

    /// Kills a slot's worker. What becomes of its tasks is delivered when it is dead, or when it
    /// should be.
    pub(in crate::engine) fn kill(&mut self, slot: SlotId, why: Killed) {
        if let Some(process) = self.slots[slot].living_mut() {
            process.kill();
            process.ask_again = None;
            self.slots[slot].kill(why, sys::now_ns() + AFTER_KILL_NS);
            self.scheduler.give_up(slot);
            // The supervisor keeps this time.
            self.has_errand = true;
        }
    }

    /// A worker's doorbell has no other end any more. It is dying; or a task has closed what it
    /// does not know: then this worker is given nothing more, and finishes what it runs, which may
    /// be another task already.
    pub(in crate::engine) fn hung_up_on(&mut self, slot: SlotId) {
        let is_alive = !self.slots[slot].is_killed()
            && self.slots[slot].up().is_some_and(|(process, _)| {
                process
                    .info()
                    .is_some_and(|info| !sys::is_leaving(info.pid()))
            });
        if is_alive {
            self.slots[slot].is_unheard(Unheard::Closed);
        }
        // One that has done nothing so far counts as a failure, or there might be no end of them.
        let is_useful = self.slots[slot].is_set_up()
            && (self.slots[slot].has_finished_chunk() || self.scheduler.is_busy(slot));
        if !is_alive || !is_useful {
            self.lost_doorbell(slot);
        } else if self.slots[slot].is_connected() {
            let now = sys::now_ns();
            self.slots[slot].disconnect(now);
            self.poll_disconnected(slot, now);
            self.part_with(slot, ExitReason::Disconnected);
            self.dispatch();
        }
    }

    /// Looks whether a worker that cannot ring has finished. After a while it is killed: what runs
    /// so long is most likely the task that closed the doorbell.
    pub(in crate::engine) fn poll_disconnected(&mut self, slot: SlotId, now: u64) {
        let Some(since) = self.slots[slot].disconnected_since() else {
            return;
        };
        if let Some((_, channel)) = self.slots[slot].up_mut() {
            channel.mute();
        }
        let has_news = self.drain_slot(slot);
        if self.scheduler.is_retiring(slot) || self.slots[slot].is_killed() {
            self.slots[slot].fall_silent();
        } else if since + GRACE_NS <= now {
            self.slots[slot].fall_silent();
            self.lost_doorbell(slot);
        } else {
            let pause = if has_news { 0 } else { (now - since) / 16 };
            let look_at = now + pause.clamp(POLL_NS, MAX_POLL_NS);
            self.slots[slot].poll_again_at(look_at);
        }
    }

    /// The system has refused what it takes to listen to a worker that lives.
    pub(in crate::engine) fn unwatched(&mut self, slot: SlotId) {
        self.slots[slot].is_unheard(Unheard::Unwatched);
        self.lost_doorbell(slot);
    }

    /// A worker is of no use: it cannot be heard. One that is dying, or leaves in good order, needs
    /// no killing.
    fn lost_doorbell(&mut self, slot: SlotId) {
        if !self.scheduler.is_retiring(slot)
            && let Some((process, _)) = self.slots[slot].up_mut()
        {
            process.kill();
            self.scheduler.give_up(slot);
            self.expect_death(slot, AFTER_DEATH_NS);
        }
    }

    /// Whether the death of a slot's worker is watched from now on.
    pub(in crate::engine) fn watched(&mut self, slot: SlotId, is_watched: bool) {
        if let Some((process, _)) = self.slots[slot].up_mut() {
            process.is_watched = is_watched;
        }
    }

    /// The starting workers to be asked by this time, in nanoseconds, how far they are: their
    /// doorbells say nothing any more.
    pub(in crate::engine) fn hung_up(&self, by: u64) -> Vec<Token> {
        let slots = self.slots.iter();
        let starting = slots.filter_map(|(slot, it)| match it.phase() {
            Phase::Starting { process, .. } if !it.is_killed() && process.asked_at() <= by => {
                Some(Token {
                    slot,
                    number: process.number,
                })
            }
            _ => None,
        });
        starting.collect()
    }

    /// Gives up launches that were ended before there was a process, of whose death nobody will
    /// hear.
    pub(in crate::engine) fn cancel_pending_launches(&mut self) {
        for slot in self.slots.ids() {
            if self.slots[slot].is_killed()
                && let Phase::Starting { process, .. } = self.slots[slot].phase()
                && process.handle.exit_fd().is_none()
            {
                self.died(slot);
            }
        }
    }

    /// A worker process has died. How it ended may not be known yet.
    pub(in crate::engine) fn died(&mut self, slot: SlotId) {
        let Some(mut released) = self.slots[slot].let_go() else {
            return;
        };
        let process = &mut released.process;
        if released.channel.is_none() && process.failure.is_none() && !self.slots[slot].is_killed()
        {
            // Its last words may still be in the doorbell.
            process.failure = process.handle.poll_ready().err();
        }
        match process.reap() {
            Poll::Pending => {
                self.scheduler.give_up(slot);
                self.slots[slot].await_status(released);
                self.expect_death(slot, AFTER_DEATH_NS);
            }
            Poll::Ready(exit) => {
                let Released {
                    mut process,
                    channel,
                    ..
                } = released;
                match channel {
                    Some(channel) => self.on_exit(slot, &process, *channel, exit),
                    None => self.exited_before_ready(slot, &mut process, Some(exit)),
                }
                self.make_way(slot);
            }
        }
    }

    /// A worker died that had been reached.
    fn on_exit(
        &mut self,
        slot: SlotId,
        process: &Process,
        channel: ParentChannel,
        exit: ExitStatus,
    ) {
        let Some(info) = process.info().cloned() else {
            return;
        };
        let expected = self.scheduler.is_retiring(slot) && exit == ExitStatus::Code(0);
        if !expected {
            self.notify.worker_lost();
        }
        let begun = channel.region().items_begun();
        let shortage = self.shortage(slot, &channel, begun, exit);
        let reason = self.reason_of_death(slot, Some(exit), expected, shortage.is_some());
        self.notify
            .worker_ended(&info, WorkerExit::new(exit, reason));
        let death = Death {
            exit: Some(exit),
            shortage,
            refused: self.fatal_call(&channel, exit),
            unheard: self.slots[slot].unheard(),
            stderr: process.stderr_tail(),
            info: info.clone(),
        };
        let peer = Peer::dead(&info, Some(process.tie.fd_socket()));
        self.take_back_items(slot, channel, peer, begun, death, expected);
    }

    /// Whether a worker has died for want of memory under the item with this number.
    fn shortage(
        &self,
        slot: SlotId,
        channel: &ParentChannel,
        item: u64,
        exit: ExitStatus,
    ) -> Option<Shortage> {
        if self.slots[slot].is_killed() {
            return None;
        }
        match (exit, self.config.lifecycle.memory_limit()) {
            (ExitStatus::Signal(signal), _) if signal == Signal::KILL.as_raw() => {
                oom_killer::has_killed().then_some(Shortage::System)
            }
            (ExitStatus::Signal(_), Some(limit)) => {
                let is_out = channel.region().was_out_of_memory(item);
                is_out.then_some(Shortage::Limit(limit))
            }
            _ => None,
        }
    }

    /// The system call that a worker's sandbox has ended it for, if it has.
    fn fatal_call(&self, channel: &ParentChannel, exit: ExitStatus) -> Option<FatalCall> {
        let is_refused = exit == ExitStatus::Signal(Signal::SYS.as_raw());
        (is_refused && self.config.lifecycle.has_sandbox())
            .then(|| FatalCall(channel.region().last_refused_call()))
    }

    /// Says which system calls a worker's sandbox has refused since it was asked before.
    pub(in crate::engine) fn tell_of_refusals(&mut self, slot: SlotId) {
        if let Some((process, channel)) = self.slots[slot].up()
            && let Some(info) = process.info()
        {
            let mut calls = channel.region().take_refused_calls().peekable();
            if calls.peek().is_some() {
                self.notify.calls_refused(info, calls);
            }
        }
    }

    /// Why a worker is dead that had been reached.
    pub(in crate::engine) fn reason_of_death(
        &self,
        slot: SlotId,
        exit: Option<ExitStatus>,
        expected: bool,
        out_of_memory: bool,
    ) -> ExitReason {
        let slot = &self.slots[slot];
        match slot.killed() {
            _ if expected => match slot.departure() {
                Departure::Retired(reason) => reason,
                Departure::Planned(_) | Departure::Stays => ExitReason::Closed,
            },
            Some(Killed::Cancelled) if self.end.has_ended() => ExitReason::Terminated,
            Some(Killed::Cancelled) => ExitReason::Cancelled,
            Some(Killed::Deadline | Killed::CallDeadline) => ExitReason::Deadline,
            Some(Killed::ProtocolViolation) => ExitReason::ProtocolViolation,
            Some(Killed::Unresponsive) => ExitReason::Unresponsive,
            Some(Killed::Silent | Killed::Uninitialized) => ExitReason::StartFailed,
            None if slot.unheard() == Some(Unheard::Closed) && !is_own_end(exit) => {
                ExitReason::Disconnected
            }
            None => match slot.setup() {
                Setup::Ready if out_of_memory => ExitReason::OutOfMemory,
                Setup::Ready => ExitReason::Crashed,
                Setup::Settings | Setup::Initializer | Setup::Failed(_) => ExitReason::StartFailed,
            },
        }
    }

    /// A worker died that had nothing to do and had never done anything.
    pub(super) fn exited_idle(&mut self, slot: SlotId, death: Death) {
        let setback = self.lifecycle.died_idle();
        self.suffer(slot, setback, || {
            let error = TaskError::new(
                TaskErrorKind::Launch,
                format!(
                    "no worker lives long enough to run a task: the last one {}",
                    death.fate()
                ),
            );
            death.explain(error)
        });
    }

    /// A worker died before it was reached.
    pub(in crate::engine) fn exited_before_ready(
        &mut self,
        slot: SlotId,
        process: &mut Process,
        exit: Option<ExitStatus>,
    ) {
        self.notify.worker_lost();
        let stderr = process.stderr_tail();
        let limit = self.config.launch_timeout;
        let error = process
            .failure
            .take()
            .unwrap_or_else(|| match self.slots[slot].killed() {
                Some(Killed::Silent) => {
                    let what = format!(
                        "the worker did not answer within {limit:?} after its launch \
                         (builder().launch_timeout(..) sets the limit)"
                    );
                    match process.handle.why_silent() {
                        Some(why) => LaunchError::new(format!("{what}; {why}")).from_missing_init(),
                        None => LaunchError::new(what),
                    }
                }
                _ => LaunchError::new(format!(
                    "the worker {} before it was ready",
                    fate(exit, None)
                )),
            })
            .with_stderr(stderr);
        self.launch_failed(slot, &error);
    }
}
