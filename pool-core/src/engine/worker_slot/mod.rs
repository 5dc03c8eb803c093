//! A slot: room for one worker process after the other, and the states of the one that it has.
//!
//! ```text
//!          launch          start           reach
//! Down ------------> Launching ----> Starting ----> Up
//!  ^ ^  launch_failed   |               |           |
//!  | +------------------+               |           |  let_go
//!  |                                    v           v
//!  +------------------------------------+-----------+
//!  |   let_go
//!  +------------- Dying   (await_status: from Down, at once after let_go)
//! ```
//!
//! Everybody may look at a state, and the transitions are methods. One from a wrong state panics
//! in a build with debug assertions, and does nothing in others.
//!
//! What is known of a worker beside its state begins anew with each [`Slot::start`], and is
//! forgotten when the worker [`is_gone`](Slot::is_gone):
//!
//! | what | values | which states |
//! |---|---|---|
//! | [`Setup`] | settings → initializer → ready, or failed | `Up` and later |
//! | [`Departure`] | stays → planned → retired, for a reason | retired: `Up` and later |
//! | [`Liveness`] | alive → terminating, by a time; killed for a reason, or not | `Starting`, later |
//! | [`Connection`] | connected → disconnected → silent | `Up` |
//! | [`DeadlineCheck`] | when to look, what was seen, which item was asked to stop | `Up` |
//!
//! A worker whose departure is planned may be killed, and so may a retired one, which a plan does
//! not bring back. Its place is another thing, since a slot has one before it has a worker: see
//! [`Place`].

mod connection;
mod deadline_check;
mod departure;
mod liveness;
mod phase;
mod setup;
#[cfg(test)]
mod tests;

use connection::Connection;
pub(super) use connection::Unheard;
use deadline_check::DeadlineCheck;
pub(super) use deadline_check::Notice;
pub(super) use departure::Departure;
pub(super) use liveness::Killed;
use liveness::Liveness;
pub(super) use phase::{Phase, Released};
pub(super) use setup::Setup;

use super::parent_channel::ParentChannel;
use super::positions::PositionId;
use super::worker_process::Process;
use crate::error::task_error::TaskError;
use crate::observe::worker_exit::ExitReason;

/// See the module.
pub(super) struct Slot {
    phase: Phase,
    place: Place,
    /// The number of its worker, or of the last that it had.
    number: u32,
    /// How many workers its position had had when it was launched.
    generation: u32,
    /// How many launches in a row have met a dying starter.
    lost_starters: u8,
    worker: Known,
}

/// Where a slot's worker belongs; see [`Positions`](super::positions::Positions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: the slot waits for a position that needs it.
    Nowhere,
    /// Its worker works there, or will.
    At(PositionId),
    /// Its worker had that position and is on the way out.
    Leaving(PositionId),
}

/// What is known of a worker beside its state. All times are in nanoseconds of the monotonic
/// clock.
#[derive(Default)]
struct Known {
    setup: Setup,
    departure: Departure,
    /// There could be no successor for it.
    goes_without_successor: bool,
    liveness: Liveness,
    connection: Connection,
    /// Why nobody could hear it, if it lived then.
    unheard: Option<Unheard>,
    deadline_check: DeadlineCheck,
    /// Whether it has finished a chunk.
    has_finished_chunk: bool,
    tally: Tally,
    /// When it was reached.
    born: u64,
    /// Since when it has been idle, if it is. Only kept where idle workers go.
    idle_since: u64,
}

/// States and transitions.
impl Slot {
    /// One without a worker.
    pub(super) fn new(position: Option<PositionId>) -> Self {
        Self {
            phase: Phase::Down { not_before: 0 },
            place: position.map_or(Place::Nowhere, Place::At),
            number: 0,
            generation: 0,
            lost_starters: 0,
            worker: Known::default(),
        }
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down { .. })
    }

    /// The worker, if it was reached and is not known to be dead.
    pub(super) fn up(&self) -> Option<(&Process, &ParentChannel)> {
        match &self.phase {
            Phase::Up { process, channel } => Some((process, channel)),
            _ => None,
        }
    }

    /// The same, to do something with it.
    pub(super) fn up_mut(&mut self) -> Option<(&mut Process, &mut ParentChannel)> {
        match &mut self.phase {
            Phase::Up { process, channel } => Some((process, channel)),
            _ => None,
        }
    }

    /// The worker that has not answered yet, and when it must have.
    pub(super) fn starting_mut(&mut self) -> Option<(&mut Process, &mut u64)> {
        match &mut self.phase {
            Phase::Starting { process, give_up } => Some((process, give_up)),
            _ => None,
        }
    }

    /// The worker process that is not known to be dead.
    pub(super) fn living_mut(&mut self) -> Option<&mut Process> {
        match &mut self.phase {
            Phase::Starting { process, .. } | Phase::Up { process, .. } => Some(process),
            Phase::Down { .. } | Phase::Launching | Phase::Dying { .. } => None,
        }
    }

    /// Its rings, also of a worker that is dead and whose items were not taken back.
    pub(super) fn channel(&self) -> Option<&ParentChannel> {
        match &self.phase {
            Phase::Up { channel, .. } => Some(channel),
            Phase::Dying { channel, .. } => channel.as_deref(),
            Phase::Down { .. } | Phase::Launching | Phase::Starting { .. } => None,
        }
    }

    /// A wrong state for a transition.
    #[cold]
    fn refuse(&self, transition: &str) {
        debug_assert!(false, "{transition} in the state {}", self.phase.name());
    }

    /// Down: the supervisor launches a worker, the one with this number.
    pub(super) fn launch(&mut self, number: u32, generation: u32) {
        if !self.is_down() {
            return self.refuse("launch");
        }
        self.number = number;
        self.generation = generation;
        self.phase = Phase::Launching;
    }

    /// Launching: it was launched, and must answer by then. Nothing is known of it.
    pub(super) fn start(&mut self, process: Process, give_up: u64) {
        if !matches!(self.phase, Phase::Launching) {
            return self.refuse("start");
        }
        self.worker = Known::default();
        self.phase = Phase::Starting { process, give_up };
    }

    /// Launching: there is no process. Or down: it died before it was reached.
    pub(super) fn launch_failed(&mut self) {
        if !matches!(self.phase, Phase::Launching | Phase::Down { .. }) {
            return self.refuse("launch_failed");
        }
        self.phase = Phase::Down { not_before: 0 };
    }

    /// Starting: it has answered.
    pub(super) fn reach(&mut self, channel: ParentChannel, now: u64) {
        self.phase = match self.take() {
            Phase::Starting { process, .. } => Phase::Up {
                process,
                channel: Box::new(channel),
            },
            other => {
                self.phase = other;
                return self.refuse("reach");
            }
        };
        self.worker.born = now;
        self.lost_starters = 0;
    }

    /// Starting, up, dying: the slot is down from now on, and has its worker no more. `None`: it
    /// had none.
    pub(super) fn let_go(&mut self) -> Option<Released> {
        let (process, channel, was_dying) = match self.take() {
            Phase::Starting { process, .. } => (process, None, false),
            Phase::Up { process, channel } => (process, Some(channel), false),
            Phase::Dying { process, channel } => (process, channel, true),
            none @ (Phase::Down { .. } | Phase::Launching) => {
                self.phase = none;
                return None;
            }
        };
        Some(Released {
            process,
            channel,
            was_dying,
        })
    }

    /// Down: what was let go of is dead, and its exit status is on its way.
    pub(super) fn await_status(&mut self, released: Released) {
        if !self.is_down() {
            return self.refuse("await_status");
        }
        let Released {
            process, channel, ..
        } = released;
        self.phase = Phase::Dying { process, channel };
    }

    /// Down: no worker is launched before this time, in nanoseconds.
    pub(super) fn launch_not_before(&mut self, at: u64) {
        match &mut self.phase {
            Phase::Down { not_before } => *not_before = at.max(*not_before),
            _ => self.refuse("launch_not_before"),
        }
    }

    fn take(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Down { not_before: 0 })
    }

    /// One more launch in a row has met a dying starter. Says how many have.
    pub(super) fn lost_starter(&mut self) -> u8 {
        self.lost_starters = self.lost_starters.saturating_add(1);
        self.lost_starters
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }
}

/// Its place.
impl Slot {
    /// Where its worker works or will.
    pub(super) fn position(&self) -> Option<PositionId> {
        match self.place {
            Place::At(position) => Some(position),
            Place::Nowhere | Place::Leaving(_) => None,
        }
    }

    /// Whether a position could have it.
    pub(super) fn is_vacant(&self) -> bool {
        self.is_down() && self.place == Place::Nowhere
    }

    /// Vacant: it gets a worker for this position.
    pub(super) fn occupy(&mut self, position: PositionId) {
        if !self.is_vacant() {
            return self.refuse("occupy");
        }
        self.place = Place::At(position);
        self.phase = Phase::Down { not_before: 0 };
        // Of a worker that was not even launched.
        self.worker.departure = Departure::Stays;
    }

    /// It has no position any more. Says whether a worker of it is on its way out.
    pub(super) fn leave(&mut self) -> bool {
        self.place = match self.place {
            Place::At(position) if !self.is_down() => Place::Leaving(position),
            Place::At(_) | Place::Nowhere => Place::Nowhere,
            Place::Leaving(position) => Place::Leaving(position),
        };
        matches!(self.place, Place::Leaving(_))
    }

    /// Its worker is gone, and all that was known of it. Gives the position that it was leaving.
    pub(super) fn is_gone(&mut self) -> Option<PositionId> {
        if !self.is_down() {
            self.refuse("is_gone");
            return None;
        }
        self.worker = Known::default();
        let Place::Leaving(position) = self.place else {
            return None;
        };
        self.place = Place::Nowhere;
        Some(position)
    }
}

/// Its worker's setup: see [`Setup`].
impl Slot {
    pub(super) fn setup(&self) -> &Setup {
        &self.worker.setup
    }

    pub(super) fn is_set_up(&self) -> bool {
        self.worker.setup.is_ready()
    }

    /// Its settings are applied, and the initializer is to run.
    pub(super) fn begin_initializer(&mut self) {
        if !self.worker.setup.begin_initializer() {
            self.refuse("begin_initializer twice");
        }
    }

    /// All has succeeded that comes before its first task.
    pub(super) fn is_ready(&mut self) {
        if !self.worker.setup.succeed() {
            self.refuse("is_ready twice");
        }
    }

    /// It could not be set up.
    pub(super) fn setup_failed(&mut self, error: TaskError) {
        if !self.worker.setup.fail(error) {
            self.refuse("setup_failed after its end");
        }
    }
}

/// Its worker's departure: see [`Departure`].
impl Slot {
    pub(super) fn departure(&self) -> Departure {
        self.worker.departure
    }

    /// Whether it is to go, or was told to.
    pub(super) fn is_to_go(&self) -> bool {
        self.worker.departure != Departure::Stays
    }

    /// It is to go for this reason, if it is not to go for another one.
    pub(super) fn plan_departure(&mut self, reason: ExitReason) {
        self.worker.departure.plan(reason);
    }

    /// It is to go for this reason, whatever was planned.
    pub(super) fn must_go(&mut self, reason: ExitReason) {
        self.worker.departure.plan_instead(reason);
    }

    /// It was told to go: for the reason that was planned, or else for this one.
    pub(super) fn retired(&mut self, otherwise: ExitReason) {
        self.worker.departure.retire(otherwise);
    }

    pub(super) fn goes_without_successor(&self) -> bool {
        self.worker.goes_without_successor
    }

    /// Not retired: there could be no successor for it.
    pub(super) fn go_without_successor(&mut self) {
        if self.worker.departure.is_retired() {
            return self.refuse("go_without_successor after it was retired");
        }
        self.worker.goes_without_successor = true;
    }
}

/// Its worker's life: see [`Liveness`].
impl Slot {
    pub(super) fn killed(&self) -> Option<Killed> {
        self.worker.liveness.killed()
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed().is_some()
    }

    /// Starting or up: it was killed, and should be gone by then. The first reason is the one.
    pub(super) fn kill(&mut self, why: Killed, due: u64) {
        if self.living_mut().is_none() {
            return self.refuse("kill");
        }
        self.worker.liveness.terminate(Some(why), due);
    }

    /// Starting, up or dying: it should be gone by then, or earlier.
    pub(super) fn expect_death(&mut self, due: u64) {
        if self.phase.process().is_none() {
            return self.refuse("expect_death");
        }
        self.worker.liveness.terminate(None, due);
    }

    /// When its tasks get their outcomes even if it is not gone.
    #[inline]
    pub(super) fn death_due(&self) -> Option<u64> {
        self.worker.liveness.due()
    }
}

/// Whether its worker can be heard: see [`Connection`].
impl Slot {
    pub(super) fn is_connected(&self) -> bool {
        self.worker.connection == Connection::Connected
    }

    /// It lives, and cannot be heard. The first reason is the one.
    pub(super) fn is_unheard(&mut self, why: Unheard) {
        self.worker.unheard.get_or_insert(why);
    }

    /// Why it could not be heard while it lived.
    pub(super) fn unheard(&self) -> Option<Unheard> {
        self.worker.unheard
    }

    /// Up and connected: it has no bell any more, and is to be looked after.
    pub(super) fn disconnect(&mut self, now: u64) {
        if self.up().is_none() || !self.is_connected() {
            return self.refuse("disconnect");
        }
        self.worker.connection = Connection::Disconnected {
            since: now,
            look_at: now,
        };
    }

    /// Since when it has been disconnected and is looked after.
    pub(super) fn disconnected_since(&self) -> Option<u64> {
        self.worker.connection.disconnected_since()
    }

    /// When to look after it again, if it is disconnected.
    #[inline]
    pub(super) fn polled_at(&self) -> Option<u64> {
        self.worker.connection.polled_at()
    }

    /// Disconnected: it is to be looked after again then.
    pub(super) fn poll_again_at(&mut self, at: u64) {
        match &mut self.worker.connection {
            Connection::Disconnected { look_at, .. } => *look_at = at,
            Connection::Connected | Connection::Silent => self.refuse("poll_again_at"),
        }
    }

    /// Disconnected: it was retired or killed, and nobody need look.
    pub(super) fn fall_silent(&mut self) {
        if self.disconnected_since().is_none() {
            return self.refuse("fall_silent");
        }
        self.worker.connection = Connection::Silent;
    }
}

/// When its worker's running item is looked at: see [`DeadlineCheck`].
impl Slot {
    /// When to look.
    #[inline]
    pub(super) fn deadline_check_due(&self) -> Option<u64> {
        self.worker.deadline_check.due()
    }

    /// It is to be looked at then, or earlier.
    pub(super) fn check_deadline_by(&mut self, due: u64) {
        self.worker.deadline_check.look_by(due);
    }

    /// It is to be looked at then, and not earlier; `None`: not at all.
    pub(super) fn check_deadline_next_at(&mut self, due: Option<u64>) {
        self.worker.deadline_check.look_next_at(due);
    }

    /// An item was asked to stop. What it was asked before stays.
    pub(super) fn give_notice(&mut self, notice: Notice) {
        self.worker.deadline_check.give_notice(notice);
    }

    /// Which item was asked to stop.
    pub(super) fn notice(&self) -> Option<Notice> {
        self.worker.deadline_check.notice()
    }

    /// The item that was asked to stop has ended.
    pub(super) fn drop_notice(&mut self) {
        self.worker.deadline_check.drop_notice();
    }

    /// It is so far, as a look at a deadline shows. Says since when it has been.
    pub(super) fn stalled_since(&mut self, position: u64, now: u64) -> u64 {
        self.worker.deadline_check.stalled_since(position, now)
    }

    /// Nobody could get ahead for this time, in nanoseconds.
    pub(super) fn excuse(&mut self, time: u64) {
        self.worker.deadline_check.excuse(time);
    }
}

/// What its worker has done.
impl Slot {
    pub(super) fn has_finished_chunk(&self) -> bool {
        self.worker.has_finished_chunk
    }

    pub(super) fn tally(&self) -> Tally {
        self.worker.tally
    }

    /// It has finished its settings, its initializer, or a chunk.
    pub(super) fn was_busy(&mut self, took_ns: u64) {
        let busy_ns = &mut self.worker.tally.busy_ns;
        *busy_ns = busy_ns.saturating_add(took_ns);
    }

    /// It has finished a chunk of so many items.
    pub(super) fn worked(&mut self, items: u32) {
        self.worker.tally.items += u64::from(items);
        self.worker.has_finished_chunk = true;
    }

    /// When it was reached.
    pub(super) fn born(&self) -> u64 {
        self.worker.born
    }

    pub(super) fn idle_since(&self) -> u64 {
        self.worker.idle_since
    }

    pub(super) fn is_idle_since(&mut self, now: u64) {
        self.worker.idle_since = now;
    }
}

/// What a worker has done since it was reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// How long the chunks took that it has finished, by its own word.
    pub(super) busy_ns: u64,
    /// Items of these chunks.
    pub(super) items: u64,
}
