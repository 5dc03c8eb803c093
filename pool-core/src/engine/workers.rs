//! The life of a pool's workers: launched, reached, dead, replaced.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::core::{Core, End, Founding, nanoseconds};
use super::load::Load;
use super::peer::Peer;
use super::prepare::died_in_preparation;
use super::slot::{Initialized, Killed, Phase, Tally};
use super::terminating::{AFTER_DEATH_NS, AFTER_KILL_NS};
use super::wire::Wire;
use super::work::Delivery;
use super::{Linked, Token};
use crate::backend::launcher::{Advance, LaunchSpec, Outlets, Reaped};
use crate::error::launch_error::LaunchError;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::worker_exit::{EndReason, WorkerEnd};
use crate::panic::report::PanicReport;
use crate::process::exit_status::ExitStatus;
use crate::process::worker_info::WorkerInfo;
use crate::shm::region::Region;
use crate::sync::atomic::Ordering;
use crate::sys;
use crate::task::chunk::Chunk;
use crate::task::options::Timeout;

/// After so many failures in a row to get a worker going, the pool gives up.
const MAX_FAILURES: u32 = 3;
/// After so many deaths of workers that had an item before them and had not begun it, as they
/// said, the next one is the item's. As many for each worker as [`Core::died_idle`] allows.
const MAX_DEATHS: u8 = 4;
/// How long the first replacement of a worker that failed to start waits; the next ones wait
/// twice as long each.
const BACK_OFF: Duration = Duration::from_millis(10);
/// How long a launch waits that has met a dying starter a second time in a row, in nanoseconds; the
/// next ones wait twice as long each, up to a tenth of a second.
const LOST_STARTER_NS: u64 = 50_000;
/// How a process ends that aborts.
const SIGABRT: ExitStatus = ExitStatus::Signal(Signal::ABORT.as_raw());

impl Core {
    /// The launches that are due, each with the slot that it is for.
    pub(super) fn due_launches(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        if matches!(self.end, End::Ended(_)) {
            return due;
        }
        self.has_errand = false;
        let now = sys::now_ns();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let ready = matches!(slot.phase, Phase::Down { not_before } if not_before <= now);
            if ready
                && let Some(place) = slot.place
                && self.scheduler.wants_worker()
            {
                self.last_number += 1;
                slot.number = self.last_number;
                slot.generation = self.places.generation(place);
                slot.phase = Phase::Launching;
                due.push(Due {
                    slot: index,
                    number: self.last_number,
                    generation: slot.generation,
                    ring_bytes: self.config.ring_bytes,
                });
            }
        }
        due
    }

    /// A worker process is on its way; in vain, if it has failed already.
    pub(super) fn launched(&mut self, slot: usize, linked: Linked) {
        let is_in_vain = linked.failure.is_some();
        self.stats.workers_started += 1;
        let give_up = sys::now_ns().saturating_add(nanoseconds(self.config.launch_timeout));
        self.slots[slot].phase = Phase::Starting { linked, give_up };
        self.slots[slot].initialized = Initialized::Unset;
        self.slots[slot].deadline = None;
        self.slots[slot].overdue = None;
        self.slots[slot].has_worked = false;
        self.slots[slot].killed = None;
        self.slots[slot].death_due = None;
        self.slots[slot].is_alone = false;
        self.slots[slot].recycle = None;
        self.slots[slot].retired = None;
        if is_in_vain {
            self.kill(slot, Killed::Silent);
        } else if matches!(self.end, End::Ended(_)) {
            self.kill(slot, Killed::Cancelled);
        }
    }

    /// A worker process could not be started.
    pub(super) fn launch_failed(&mut self, slot: usize, error: &LaunchError) {
        self.slots[slot].phase = Phase::Down { not_before: 0 };
        if self.slots[slot].place.is_none() {
            // It was to go anyway.
            self.make_way(slot);
            return;
        }
        if error.is_lost_starter() {
            let losses = &mut self.slots[slot].lost_starters;
            *losses = losses.saturating_add(1);
            // At once. Only who dies slowly is asked several times.
            let pause = (*losses > 1).then(|| LOST_STARTER_NS << (*losses - 2).min(11));
            self.slots[slot].phase = Phase::Down {
                not_before: pause.map_or(0, |pause| sys::now_ns() + pause),
            };
            return;
        }
        if matches!(self.founding, Founding::Waiting(_)) {
            self.founding = Founding::Failed(error.clone());
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
    pub(super) fn startup_failed(&mut self, slot: usize, reason: TaskError) {
        // Workers that were on their way already when the last one failed are no further attempt:
        // one cause may have hit them all.
        if self.slots[slot].number > self.failed_until {
            self.failures += 1;
            self.failed_until = self.last_number;
        }
        if let Phase::Down { not_before } = &mut self.slots[slot].phase {
            *not_before = sys::now_ns() + back_off(self.failures.max(1));
        }
        if self.failures >= MAX_FAILURES {
            self.end(reason);
        }
    }

    /// A starting worker's bell is readable. Says whether the worker was reached by this.
    pub(super) fn advance(&mut self, slot: usize) -> bool {
        if self.slots[slot].killed.is_some() {
            return false;
        }
        let Phase::Starting { linked, .. } = &mut self.slots[slot].phase else {
            return false;
        };
        match linked.link.advance() {
            Ok(Advance::Pending) => false,
            Ok(Advance::HungUp) => {
                linked.is_to_be_asked_again();
                false
            }
            Ok(Advance::Reached) => {
                // Once and for all: the link may say something else the next time.
                let region = linked.link.region();
                let bytes = self.config.ring_bytes;
                if region.claim(bytes, bytes) {
                    let limit = &region.words().advice.max_result;
                    limit.store(self.config.max_result_bytes, Ordering::Relaxed);
                    self.reached(slot, region);
                    return true;
                }
                linked.failure = Some(LaunchError::new(
                    "the backend has given a region that is not of the size of this launch, or that \
                     another worker has",
                ));
                self.kill(slot, Killed::Silent);
                false
            }
            Err(error) => {
                linked.failure = Some(error);
                self.kill(slot, Killed::Silent);
                false
            }
        }
    }

    fn reached(&mut self, slot: usize, region: Arc<Region>) {
        let bytes = self.config.ring_bytes;
        let phase = std::mem::replace(&mut self.slots[slot].phase, Phase::Down { not_before: 0 });
        let Phase::Starting { mut linked, .. } = phase else {
            self.slots[slot].phase = phase;
            return;
        };
        let place = self.slots[slot].place;
        let info = linked.learn_pid(self.slots[slot].generation, &region);
        self.tell_of_start(place.unwrap_or(slot), &info);
        let mut wire = Wire::new(region, bytes, bytes);
        wire.limit_results(self.config.max_result_bytes);
        self.slots[slot].phase = Phase::Up {
            linked,
            wire: Box::new(wire),
        };
        self.slots[slot].born = sys::now_ns();
        self.slots[slot].lost_starters = 0;
        self.slots[slot].tally = Tally::default();
        self.scheduler.up(slot);
        match place {
            Some(place) => self.places.generate(place),
            None => self.send_away(slot),
        }
        if self.is_successor(slot) {
            self.scheduler.reserve(slot);
        }
        self.prepare(slot);
    }

    /// Kills a slot's worker. What becomes of its tasks is told when it is dead, or when it should
    /// be.
    pub(super) fn kill(&mut self, slot: usize, why: Killed) {
        if let Phase::Starting { linked, .. } | Phase::Up { linked, .. } =
            &mut self.slots[slot].phase
        {
            linked.kill();
            linked.ask_again = None;
            self.slots[slot].killed.get_or_insert(why);
            self.scheduler.doom(slot);
            self.expect_death(slot, AFTER_KILL_NS);
        }
    }

    /// A worker's bell has no other end any more, or cannot be heard. A worker that is dying, or
    /// leaves in good order, needs no killing; one that closed it is of no use.
    pub(super) fn lost_bell(&mut self, slot: usize) {
        if !self.scheduler.is_retiring(slot)
            && let Phase::Up { linked, .. } = &mut self.slots[slot].phase
        {
            linked.kill();
            self.scheduler.doom(slot);
            self.expect_death(slot, AFTER_DEATH_NS);
        }
    }

    /// Whether the death of a slot's worker is watched from now on.
    pub(super) fn watched(&mut self, slot: usize, is_watched: bool) {
        if let Phase::Up { linked, .. } = &mut self.slots[slot].phase {
            linked.is_watched = is_watched;
        }
    }

    /// The starting workers to be asked by this time, in nanoseconds, how far they are: their bells
    /// say nothing any more.
    pub(super) fn hung_up(&self, by: u64) -> Vec<Token> {
        let slots = self.slots.iter().enumerate();
        let starting = slots.filter_map(|(slot, it)| match &it.phase {
            Phase::Starting { linked, .. } if it.killed.is_none() && linked.asked_at() <= by => {
                Some(Token {
                    slot,
                    number: linked.number,
                })
            }
            _ => None,
        });
        starting.collect()
    }

    /// Gives up launches that were ended before there was a process, of whose death nobody will
    /// hear.
    pub(super) fn bury_unborn(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].killed.is_some()
                && let Phase::Starting { linked, .. } = &self.slots[slot].phase
                && linked.link.death().is_none()
            {
                self.died(slot);
            }
        }
    }

    /// A worker process has died. How it ended may not be known yet.
    pub(super) fn died(&mut self, slot: usize) {
        let phase = std::mem::replace(&mut self.slots[slot].phase, Phase::Down { not_before: 0 });
        let (mut linked, wire) = match phase {
            Phase::Starting { linked, .. } => (linked, None),
            Phase::Up { linked, wire } => (linked, Some(wire)),
            Phase::Dying { linked, wire } => (linked, wire),
            Phase::Down { .. } | Phase::Launching => {
                self.slots[slot].phase = phase;
                return;
            }
        };
        if wire.is_none() && linked.failure.is_none() && self.slots[slot].killed.is_none() {
            // Its last words may still be in the bell.
            linked.failure = linked.link.advance().err();
        }
        match linked.reap() {
            Reaped::Pending => {
                self.scheduler.doom(slot);
                self.slots[slot].phase = Phase::Dying { linked, wire };
                self.expect_death(slot, AFTER_DEATH_NS);
            }
            Reaped::Exited(exit) => {
                match wire {
                    Some(wire) => self.bury(slot, &linked, *wire, exit),
                    None => self.stillborn(slot, &mut linked, Some(exit)),
                }
                self.make_way(slot);
            }
        }
    }

    /// A worker died that had been reached.
    fn bury(&mut self, slot: usize, linked: &Linked, wire: Wire, exit: ExitStatus) {
        let Some(info) = linked.info().cloned() else {
            return;
        };
        let expected = self.scheduler.is_retiring(slot) && exit == ExitStatus::Code(0);
        if !expected {
            self.stats.workers_lost += 1;
        }
        let reason = self.reason_of_death(slot, expected);
        self.count_end(&info, exit, reason);
        let death = Death {
            exit: Some(exit),
            stderr: linked.last_words(),
            info: info.clone(),
        };
        let begun = wire.region().items_begun();
        self.settle_items(slot, wire, Peer::dead(&info), begun, death, expected);
    }

    /// A worker that was reached is gone.
    pub(super) fn count_end(&mut self, info: &WorkerInfo, exit: ExitStatus, reason: EndReason) {
        *self.stats.workers_ended.entry(reason).or_default() += 1;
        self.tell_of_death(info, WorkerEnd::new(exit, reason));
    }

    /// Decides what becomes of all that a worker had, which runs nothing any more and had begun so
    /// many items. What it has finished is taken in first.
    pub(super) fn settle_items(
        &mut self,
        slot: usize,
        mut wire: Wire,
        peer: Peer<'_>,
        begun: u64,
        death: Death,
        expected: bool,
    ) {
        let killed = self.slots[slot].killed;
        // A rogue's records are not worth reading; what it had is lost or run again.
        if killed != Some(Killed::Rogue) {
            let mut harvest = std::mem::take(&mut self.harvest);
            // What comes behind nonsense is lost with the worker.
            let _ = wire.harvest_remains(slot, peer, &mut self.scheduler, &mut harvest);
            for (done, took) in harvest.finished.drain(..) {
                self.finished(slot, done, took);
            }
            self.harvest = harvest;
        }
        wire.count(&mut self.stats);
        self.slots[slot].deadline = None;
        let begun = self.begun_at_death(slot, begun);
        let remains = self.scheduler.down(slot, begun);
        for done in remains.finished {
            self.deliver(Delivery::new(done, 0));
        }
        if matches!(self.end, End::Ended(_)) {
            return;
        }
        // A process that was ended by a panic was not killed.
        let has_aborted = killed.is_none() && death.exit == Some(SIGABRT);
        let panic = has_aborted
            .then(|| wire.region().words().last_panic.read(begun))
            .flatten();
        let is_orphan = death.exit == Some(ExitStatus::Orphaned);
        match self.slots[slot].initialized.clone() {
            Initialized::Failed(error) => self.startup_failed(slot, error),
            // Not the initializer's fault, as far as anybody knows.
            Initialized::Unset | Initialized::Pending if is_orphan => {
                self.scheduler.extract(|chunk| chunk.is_initializer);
            }
            stage @ (Initialized::Unset | Initialized::Pending) => {
                // The initializer itself may be what was not begun.
                self.scheduler.extract(|chunk| chunk.is_initializer);
                let error = died_in_preparation(&stage, death.exit, panic);
                let error = death.explain(error);
                if matches!(stage, Initialized::Unset) {
                    self.unfounded(&error);
                }
                self.startup_failed(slot, error);
            }
            Initialized::Yes => match remains.lost {
                Some(mut lost) => {
                    if let Some(ledger) = lost.ledger_mut() {
                        let begun = wire.region().item_started();
                        ledger.lost(&death.info, begun, sys::now_ns());
                    }
                    self.lost(lost, killed, panic, death);
                }
                None if expected
                    || killed.is_some()
                    || is_orphan
                    || self.slots[slot].has_worked => {}
                None => self.died_idle(slot, death),
            },
        }
    }

    /// Why a worker is dead that had been reached.
    pub(super) fn reason_of_death(&self, slot: usize, expected: bool) -> EndReason {
        let slot = &self.slots[slot];
        match slot.killed {
            _ if expected => slot.retired.unwrap_or(EndReason::Closed),
            Some(Killed::Cancelled) if matches!(self.end, End::Ended(_)) => EndReason::Terminated,
            Some(Killed::Cancelled) => EndReason::Cancelled,
            Some(Killed::Deadline) => EndReason::Deadline,
            Some(Killed::Rogue) => EndReason::Rogue,
            Some(Killed::Stuck) => EndReason::Stuck,
            Some(Killed::Silent | Killed::Uninitialized) => EndReason::Unready,
            None => match slot.initialized {
                Initialized::Yes => EndReason::Crashed,
                Initialized::Unset | Initialized::Pending | Initialized::Failed(_) => {
                    EndReason::Unready
                }
            },
        }
    }

    /// How many items a worker had begun that runs nothing any more.
    ///
    /// That is its own word, and a task may have changed it. If what was next had not begun, it is
    /// run again, but not for ever: what hides from this would take one worker after another with
    /// it.
    fn begun_at_death(&mut self, slot: usize, begun: u64) -> u64 {
        if self.scheduler.running_item(slot, begun).is_some() {
            return begun;
        }
        let killed = self.slots[slot].killed;
        match self.scheduler.next_mut(slot) {
            Some(next) if killed == Some(Killed::Rogue) || next.deaths == MAX_DEATHS => u64::MAX,
            Some(next) => {
                // One that was stopped from outside has begun nothing. If the next one is stuck
                // before the same item, the item does it.
                next.deaths = match killed {
                    Some(Killed::Stuck) => MAX_DEATHS,
                    _ => next.deaths + 1,
                };
                begun
            }
            None => begun,
        }
    }

    /// A worker died that had nothing to do and had never done anything. One may be killed by
    /// somebody; when all are, they do not survive in this place.
    fn died_idle(&mut self, slot: usize, death: Death) {
        self.idle_deaths += 1;
        let limit = (4 * self.places.open()).max(16) as u32;
        if self.idle_deaths > limit {
            let error = TaskError::new(
                TaskErrorKind::Launch,
                format!(
                    "no worker lives long enough to run a task: the last one {}",
                    fate(death.exit)
                ),
            );
            self.end(death.explain(error));
        } else if self.idle_deaths as usize > self.places.open()
            && let Phase::Down { not_before } = &mut self.slots[slot].phase
        {
            *not_before = sys::now_ns() + back_off(self.idle_deaths);
        }
    }

    /// A worker died while it ran this item.
    ///
    /// `panic` is the one that ended the worker, if one did. It would do so again.
    fn lost(
        &mut self,
        mut chunk: Chunk,
        killed: Option<Killed>,
        panic: Option<PanicReport>,
        death: Death,
    ) {
        let has_panicked = panic.is_some();
        let error = match killed {
            Some(Killed::Deadline) => TaskError::timed_out(chunk.timeout.map(Timeout::as_duration)),
            Some(Killed::Stuck) if chunk.timeout.is_some() => {
                TaskError::timed_out(chunk.timeout.map(Timeout::as_duration))
            }
            Some(Killed::Cancelled) => TaskError::cancelled(),
            Some(Killed::Rogue) => TaskError::new(
                TaskErrorKind::WorkerLost,
                "the worker wrote rubbish into the memory that it shares with the pool, and was \
                 killed",
            ),
            _ => match panic {
                Some(panic) => TaskError::aborted(panic, &fate(death.exit)),
                None => TaskError::worker_lost(&fate(death.exit)),
            },
        };
        let error = death.explain(error);
        let again = chunk.retries > 0 && killed != Some(Killed::Cancelled) && !has_panicked;
        if again && !matches!(self.end, End::Ended(_)) && !chunk.is_abandoned() {
            chunk.retries -= 1;
            if let Some(ledger) = chunk.ledger_mut() {
                ledger.again(sys::now_ns());
            }
            self.scheduler.resubmit(chunk);
        } else {
            self.fail(chunk, error);
        }
    }

    /// A worker died before it was reached.
    pub(super) fn stillborn(&mut self, slot: usize, linked: &mut Linked, exit: Option<ExitStatus>) {
        self.stats.workers_lost += 1;
        let stderr = linked.last_words();
        let limit = self.config.launch_timeout;
        let error = linked
            .failure
            .take()
            .unwrap_or_else(|| {
                match self.slots[slot].killed {
            Some(Killed::Silent) => LaunchError::new(format!(
                "the worker did not answer within {limit:?} after its launch; is procpool::init() \
                 the first line of main? (builder().launch_timeout(..) sets the limit)"
            ))
            .from_missing_init(),
            _ => LaunchError::new(format!("the worker {} before it was ready", fate(exit))),
        }
            })
            .with_stderr(stderr);
        self.launch_failed(slot, &error);
    }
}

/// A launch that is due.
#[derive(Debug)]
pub(super) struct Due {
    /// What it is for.
    pub(super) slot: usize,
    pub(super) number: u32,
    pub(super) generation: u32,
    pub(super) ring_bytes: usize,
}

impl Due {
    /// What the launcher is told; with the worker's end of its tie.
    pub(super) fn spec(&self, outlets: Outlets, tie: OwnedFd) -> LaunchSpec {
        LaunchSpec {
            number: self.number,
            generation: self.generation,
            seed: sys::random_seed(),
            request_bytes: self.ring_bytes,
            response_bytes: self.ring_bytes,
            outlets,
            tie: Arc::new(tie),
        }
    }
}

/// What is known of a worker's death.
pub(super) struct Death {
    /// `None`: it was killed, and is not dead yet.
    pub(super) exit: Option<ExitStatus>,
    pub(super) info: WorkerInfo,
    /// The last lines that it has written to standard error.
    pub(super) stderr: Option<String>,
}

impl Death {
    /// The error of what was lost by it.
    fn explain(self, error: TaskError) -> TaskError {
        let error = match self.exit {
            Some(exit) => error.with_exit(exit),
            None => error,
        };
        error.with_worker(self.info).with_stderr(self.stderr)
    }
}

/// What became of a worker; completes "the worker …".
pub(super) fn fate(exit: Option<ExitStatus>) -> Cow<'static, str> {
    match exit {
        Some(exit) => exit.to_string().into(),
        None => "was killed (the system has yet to let go of it)".into(),
    }
}

pub(super) fn back_off(failures: u32) -> u64 {
    nanoseconds(BACK_OFF) << (failures - 1).min(8)
}
