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
//! | [`Life`] | lives → doomed, with a time; killed for a reason, or not | `Starting` and later |
//! | [`Bell`] | connected → disconnected → silent | `Up` |
//!
//! A worker whose departure is planned may be killed, and so may a retired one, which a plan does
//! not bring back. Its place is another thing, since a slot has one before it has a worker: see
//! [`Place`].

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

/// Whether a worker is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Departure {
    /// It is not.
    #[default]
    Stays,
    /// When its successor is ready, or when it has finished what it runs.
    Planned(ExitReason),
    /// It was told to.
    Retired(ExitReason),
}

/// What is known of a worker beside its state. All times are in nanoseconds of the monotonic
/// clock.
#[derive(Default)]
struct Known {
    setup: Setup,
    departure: Departure,
    /// There could be no successor for it.
    goes_without_successor: bool,
    life: Life,
    bell: Bell,
    /// When to look at the running item's deadline.
    deadline: Option<u64>,
    /// Which item was asked to stop and is killed if it does not.
    notice: Option<Notice>,
    /// How far it was when a deadline was last looked at, and when it was first seen there.
    overdue: Option<(u64, u64)>,
    /// Whether it has finished a chunk.
    has_finished_chunk: bool,
    tally: Tally,
    /// When it was reached.
    born: u64,
    /// Since when it has been idle, if it is. Only kept where idle workers go.
    idle_since: u64,
}

/// Whether a worker goes on living. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    /// As far as is known.
    #[default]
    Lives,
    /// It was killed, for this reason if the pool had one, or has died. Its tasks get their outcomes
    /// at that time even if it is not gone.
    Doomed { killed: Option<Killed>, due: u64 },
}

/// Whether a worker can be heard. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Bell {
    #[default]
    Connected,
    /// A living worker that has no bell any more finishes what it runs, and the parent looks for
    /// that now and then.
    Disconnected { since: u64, look_at: u64 },
    /// It has none, and nobody looks: it was retired or killed.
    Silent,
}

/// What a slot had, which has no worker any more.
pub(super) struct Released {
    pub(super) process: Process,
    /// If it was reached.
    pub(super) channel: Option<Box<ParentChannel>>,
    /// It is dead, and was waiting for its exit status.
    pub(super) was_dying: bool,
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

    /// Its rings, also of a worker that is dead and not settled.
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

    /// Where its worker works or will, or has worked.
    pub(super) fn last_position(&self) -> Option<PositionId> {
        match self.place {
            Place::At(position) | Place::Leaving(position) => Some(position),
            Place::Nowhere => None,
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

/// Its worker's setup.
impl Slot {
    pub(super) fn setup(&self) -> &Setup {
        &self.worker.setup
    }

    pub(super) fn is_set_up(&self) -> bool {
        matches!(self.worker.setup, Setup::Ready)
    }

    /// Its settings are applied, and the initializer is to run.
    pub(super) fn begin_initializer(&mut self) {
        if !matches!(self.worker.setup, Setup::Settings) {
            return self.refuse("begin_initializer twice");
        }
        self.worker.setup = Setup::Initializer;
    }

    /// All has succeeded that comes before its first task.
    pub(super) fn is_ready(&mut self) {
        if !self.worker.setup.goes_on() {
            return self.refuse("is_ready twice");
        }
        self.worker.setup = Setup::Ready;
    }

    /// It could not be set up.
    pub(super) fn setup_failed(&mut self, error: TaskError) {
        if !self.worker.setup.goes_on() {
            return self.refuse("setup_failed after its end");
        }
        self.worker.setup = Setup::Failed(error);
    }
}

/// Its worker's departure.
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
        if self.worker.departure == Departure::Stays {
            self.worker.departure = Departure::Planned(reason);
        }
    }

    /// It is to go for this reason, whatever was planned.
    pub(super) fn must_go(&mut self, reason: ExitReason) {
        if !matches!(self.worker.departure, Departure::Retired(_)) {
            self.worker.departure = Departure::Planned(reason);
        }
    }

    /// It was told to go: for the reason that was planned, or else for this one.
    pub(super) fn retired(&mut self, otherwise: ExitReason) {
        let reason = match self.worker.departure {
            Departure::Stays => otherwise,
            Departure::Planned(reason) | Departure::Retired(reason) => reason,
        };
        self.worker.departure = Departure::Retired(reason);
    }

    pub(super) fn goes_without_successor(&self) -> bool {
        self.worker.goes_without_successor
    }

    /// Not retired: there could be no successor for it.
    pub(super) fn go_without_successor(&mut self) {
        if matches!(self.worker.departure, Departure::Retired(_)) {
            return self.refuse("go_without_successor after it was retired");
        }
        self.worker.goes_without_successor = true;
    }
}

/// Its worker's life.
impl Slot {
    pub(super) fn killed(&self) -> Option<Killed> {
        match self.worker.life {
            Life::Lives => None,
            Life::Doomed { killed, .. } => killed,
        }
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed().is_some()
    }

    /// Starting or up: it was killed, and should be gone by then. The first reason is the one.
    pub(super) fn kill(&mut self, why: Killed, due: u64) {
        if self.living_mut().is_none() {
            return self.refuse("kill");
        }
        self.doom(Some(why), due);
    }

    /// Starting, up or dying: it should be gone by then, or earlier.
    pub(super) fn expect_death(&mut self, due: u64) {
        if self.phase.process().is_none() {
            return self.refuse("expect_death");
        }
        self.doom(None, due);
    }

    fn doom(&mut self, why: Option<Killed>, due: u64) {
        self.worker.life = match self.worker.life {
            Life::Lives => Life::Doomed { killed: why, due },
            Life::Doomed { killed, due: first } => Life::Doomed {
                killed: killed.or(why),
                due: first.min(due),
            },
        };
    }

    /// When its tasks get their outcomes even if it is not gone.
    #[inline]
    pub(super) fn death_due(&self) -> Option<u64> {
        match self.worker.life {
            Life::Lives => None,
            Life::Doomed { due, .. } => Some(due),
        }
    }
}

/// Whether its worker can be heard.
impl Slot {
    pub(super) fn is_connected(&self) -> bool {
        self.worker.bell == Bell::Connected
    }

    /// Up and connected: it has no bell any more, and is to be looked after.
    pub(super) fn disconnect(&mut self, now: u64) {
        if self.up().is_none() || !self.is_connected() {
            return self.refuse("disconnect");
        }
        self.worker.bell = Bell::Disconnected {
            since: now,
            look_at: now,
        };
    }

    /// Since when it has been disconnected and is looked after.
    pub(super) fn disconnected_since(&self) -> Option<u64> {
        match self.worker.bell {
            Bell::Disconnected { since, .. } => Some(since),
            Bell::Connected | Bell::Silent => None,
        }
    }

    /// When to look after it again, if it is disconnected.
    #[inline]
    pub(super) fn polled_at(&self) -> Option<u64> {
        match self.worker.bell {
            Bell::Disconnected { look_at, .. } => Some(look_at),
            Bell::Connected | Bell::Silent => None,
        }
    }

    /// Disconnected: it is to be looked after again then.
    pub(super) fn poll_again_at(&mut self, at: u64) {
        match &mut self.worker.bell {
            Bell::Disconnected { look_at, .. } => *look_at = at,
            Bell::Connected | Bell::Silent => self.refuse("poll_again_at"),
        }
    }

    /// Disconnected: it was retired or killed, and nobody need look.
    pub(super) fn fall_silent(&mut self) {
        if self.disconnected_since().is_none() {
            return self.refuse("fall_silent");
        }
        self.worker.bell = Bell::Silent;
    }
}

/// When its worker's items are looked at.
impl Slot {
    pub(super) fn deadline(&self) -> Option<u64> {
        self.worker.deadline
    }

    /// The running item's deadline is to be looked at then, or earlier.
    pub(super) fn look_at(&mut self, due: u64) {
        let worker = &mut self.worker;
        if worker.deadline.is_none() {
            // What was seen before was of other items.
            worker.overdue = None;
        }
        worker.deadline = Some(worker.deadline.map_or(due, |earlier| earlier.min(due)));
    }

    /// It is to be looked at then, and not earlier; `None`: not at all.
    pub(super) fn look_next_at(&mut self, due: Option<u64>) {
        self.worker.deadline = due;
    }

    /// An item was asked to stop. What it was asked before stays.
    pub(super) fn give_notice(&mut self, notice: Notice) {
        let earlier = self.worker.notice.filter(|it| it.item == notice.item);
        self.worker.notice = earlier.or(Some(notice));
    }

    /// Which item was asked to stop.
    pub(super) fn notice(&self) -> Option<Notice> {
        self.worker.notice
    }

    /// The item that was asked to stop has ended.
    pub(super) fn heeds_notice(&mut self) {
        self.worker.notice = None;
    }

    /// It is so far, as a look at a deadline shows. Says since when it has been.
    pub(super) fn stands_since(&mut self, position: u64, now: u64) -> u64 {
        let (seen, since) = self.worker.overdue.unwrap_or((position, now));
        let since = if position > seen { now } else { since };
        self.worker.overdue = Some((position.max(seen), since));
        since
    }

    /// Nobody could get ahead for this time, in nanoseconds.
    pub(super) fn excuse(&mut self, time: u64) {
        if let Some((_, since)) = &mut self.worker.overdue {
            *since += time;
        }
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

/// What comes before a worker's first task.
#[derive(Debug, Clone, Default)]
pub(super) enum Setup {
    /// It applies its settings.
    #[default]
    Settings,
    /// It runs the initializer, or has not begun.
    Initializer,
    /// That has finished, or there is none.
    Ready,
    /// One of both failed.
    Failed(TaskError),
}

impl Setup {
    fn goes_on(&self) -> bool {
        matches!(self, Self::Settings | Self::Initializer)
    }
}

/// The life of a slot's worker.
pub(super) enum Phase {
    /// There is none; not to be launched before this time, in nanoseconds.
    Down { not_before: u64 },
    /// The supervisor is launching one.
    Launching,
    /// It was launched and has not answered.
    Starting { process: Process, give_up: u64 },
    /// It works, or is on its way out.
    Up {
        process: Process,
        channel: Box<ParentChannel>,
    },
    /// It is dead, and its exit status is on its way.
    Dying {
        process: Process,
        channel: Option<Box<ParentChannel>>,
    },
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Launching => "launching",
            Self::Starting { .. } => "starting",
            Self::Up { .. } => "up",
            Self::Dying { .. } => "dying",
        }
    }

    /// The worker process, if there is one.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Starting { process, .. }
            | Self::Up { process, .. }
            | Self::Dying { process, .. } => Some(process),
            Self::Down { .. } | Self::Launching => None,
        }
    }

    /// When a slot's worker is to be asked how it ended, in nanoseconds; `u64::MAX`: not yet.
    pub(super) fn asked_at(&self) -> u64 {
        self.process().map_or(u64::MAX, Process::asked_at)
    }
}

/// Why the parent killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// The running item was at its deadline.
    Deadline,
    /// The call of the running item was at its deadline.
    CallDeadline,
    /// The task was to be killed.
    Cancelled,
    /// It wrote rubbish into its region, or closed its doorbell.
    ProtocolViolation,
    /// It did not get ahead in the time that it had, whatever it said of itself.
    Unresponsive,
    /// It did not answer in time after its launch.
    Silent,
    /// Its initializer failed.
    Uninitialized,
}

/// That an item was asked to stop, and is killed if it has not by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
    /// Its number, counted from 1.
    pub(super) item: u64,
    pub(super) why: Killed,
    /// In nanoseconds.
    pub(super) due: u64,
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;
    use crate::backend::launcher::{Readiness, WorkerHandle};
    use crate::backend::tie::Tie;
    use crate::error::launch_error::LaunchError;
    use crate::process::exit_status::ExitStatus;
    use crate::shm::region::Region;

    const BYTES: usize = 4096;

    /// A worker of which there is a region only.
    struct Nothing(Arc<Region>, OwnedFd);

    impl WorkerHandle for Nothing {
        fn region(&self) -> Arc<Region> {
            self.0.clone()
        }

        fn doorbell(&self) -> BorrowedFd<'_> {
            self.1.as_fd()
        }

        fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
            Ok(Readiness::Pending)
        }

        fn pid(&self) -> Option<u32> {
            None
        }

        fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn kill(&mut self) {}

        fn reap(&mut self) -> Poll<ExitStatus> {
            Poll::Pending
        }
    }

    fn region() -> Arc<Region> {
        let (region, _file) = Region::create(Region::bytes_for(BYTES, BYTES)).expect("memory");
        region.introduce(1, 0, BYTES, BYTES);
        Arc::new(region)
    }

    fn process() -> Process {
        let (tie, theirs) = Tie::new().expect("descriptors");
        Process {
            handle: Box::new(Nothing(region(), theirs)),
            tie,
            number: 1,
            seed: 0,
            info: None,
            failure: None,
            is_watched: false,
            ask_again: None,
            pipes: None,
        }
    }

    fn channel() -> ParentChannel {
        ParentChannel::new(region(), BYTES, BYTES)
    }

    fn position() -> PositionId {
        let positions = crate::engine::positions::Positions::new(1);
        positions.all().next().expect("one")
    }

    /// A slot in each of its states.
    fn each_state() -> [Slot; 5] {
        let mut slots = [(); 5].map(|()| Slot::new(Some(position())));
        for slot in &mut slots[1..] {
            slot.launch(1, 0);
        }
        for slot in &mut slots[2..] {
            slot.start(process(), 7);
        }
        for slot in &mut slots[3..] {
            slot.reach(channel(), 8);
        }
        for slot in &mut slots[4..] {
            let released = slot.let_go().expect("a worker");
            slot.await_status(released);
        }
        let names = slots.each_ref().map(|slot| slot.phase().name());
        assert_eq!(names, ["down", "launching", "starting", "up", "dying"]);
        slots
    }

    type Transition = fn(&mut Slot);

    /// What each transition makes of each state; `None`: it is refused, and the state stays.
    const TRANSITIONS: [(&str, Transition, [Option<&str>; 5]); 7] = [
        (
            "launch",
            |slot| slot.launch(2, 1),
            [Some("launching"), None, None, None, None],
        ),
        (
            "start",
            |slot| slot.start(process(), 9),
            [None, Some("starting"), None, None, None],
        ),
        (
            "launch_failed",
            Slot::launch_failed,
            [Some("down"), Some("down"), None, None, None],
        ),
        (
            "reach",
            |slot| slot.reach(channel(), 9),
            [None, None, Some("up"), None, None],
        ),
        (
            "let_go",
            |slot| drop(slot.let_go()),
            [
                Some("down"),
                Some("launching"),
                Some("down"),
                Some("down"),
                Some("down"),
            ],
        ),
        (
            "await_status",
            |slot| {
                slot.await_status(Released {
                    process: process(),
                    channel: None,
                    was_dying: false,
                });
            },
            [Some("dying"), None, None, None, None],
        ),
        (
            "launch_not_before",
            |slot| slot.launch_not_before(5),
            [Some("down"), None, None, None, None],
        ),
    ];

    #[test]
    fn each_transition_from_each_state() {
        for (name, transition, expected) in TRANSITIONS {
            for (slot, expected) in each_state().iter_mut().zip(expected) {
                let before = slot.phase().name();
                let done = catch_unwind(AssertUnwindSafe(|| transition(slot)));
                let is_refused = expected.is_none() && cfg!(debug_assertions);
                assert_eq!(done.is_err(), is_refused, "{name} from {before}");
                let after = expected.unwrap_or(before);
                assert_eq!(slot.phase().name(), after, "{name} from {before}");
            }
        }
    }

    #[test]
    fn a_new_worker_has_nothing_of_the_one_before() {
        let [_, _, _, mut slot, _] = each_state();
        fill(&mut slot);
        slot.let_go().expect("a worker");
        slot.launch(2, 1);
        slot.start(process(), 0);
        assert_nothing_is_known(&slot);
    }

    /// Timers and reports look at slots whose worker is gone, too.
    #[test]
    fn what_was_known_of_a_worker_is_gone_with_it() {
        let [_, _, _, mut slot, _] = each_state();
        fill(&mut slot);
        slot.let_go().expect("a worker");
        assert!(slot.is_killed(), "what it had is settled by that");
        slot.is_gone();
        assert_nothing_is_known(&slot);
    }

    /// Lets a worker that is up have all that can be known of one.
    fn fill(slot: &mut Slot) {
        slot.begin_initializer();
        slot.is_ready();
        slot.plan_departure(ExitReason::MaxAge);
        slot.go_without_successor();
        slot.disconnect(3);
        slot.kill(Killed::Deadline, 9);
        slot.look_at(5);
        slot.worked(3);
    }

    fn assert_nothing_is_known(slot: &Slot) {
        assert!(!slot.is_killed() && !slot.is_to_go() && !slot.goes_without_successor());
        assert!(!slot.is_set_up() && !slot.has_finished_chunk() && slot.is_connected());
        let times = (slot.deadline(), slot.death_due(), slot.polled_at());
        assert_eq!(times, (None, None, None));
        assert_eq!(slot.tally().items, 0);
    }

    /// Whether a build with debug assertions refuses it; others do nothing.
    fn is_refused(slot: &mut Slot, transition: impl FnOnce(&mut Slot)) -> bool {
        let done = catch_unwind(AssertUnwindSafe(|| transition(slot)));
        done.is_err() || !cfg!(debug_assertions)
    }

    #[test]
    fn a_setup_goes_on_to_one_end() {
        let [_, _, _, mut slot, _] = each_state();
        slot.begin_initializer();
        assert!(is_refused(&mut slot, Slot::begin_initializer));
        assert!(matches!(slot.setup(), Setup::Initializer));
        slot.is_ready();
        assert!(is_refused(&mut slot, Slot::is_ready));
        let fail = |slot: &mut Slot| slot.setup_failed(TaskError::closed());
        assert!(is_refused(&mut slot, fail) && slot.is_set_up());
        let [_, _, _, mut slot, _] = each_state();
        fail(&mut slot);
        assert!(is_refused(&mut slot, Slot::is_ready));
        assert!(is_refused(&mut slot, Slot::begin_initializer));
        assert!(matches!(slot.setup(), Setup::Failed(_)));
    }

    #[test]
    fn a_worker_is_killed_for_the_first_reason_and_gone_by_the_first_time() {
        let [mut down, mut launching, mut starting, mut up, mut dying] = each_state();
        for slot in [&mut down, &mut launching, &mut dying] {
            let kill = |slot: &mut Slot| slot.kill(Killed::Cancelled, 5);
            assert!(is_refused(slot, kill) && !slot.is_killed());
        }
        for slot in [&mut down, &mut launching] {
            assert!(is_refused(slot, |slot| slot.expect_death(5)));
            assert_eq!(slot.death_due(), None);
        }
        dying.expect_death(5);
        assert_eq!((dying.killed(), dying.death_due()), (None, Some(5)));
        for slot in [&mut starting, &mut up] {
            slot.expect_death(7);
            assert!(!slot.is_killed());
            slot.kill(Killed::Deadline, 8);
            slot.kill(Killed::Cancelled, 6);
            slot.expect_death(9);
            let known = (slot.killed(), slot.death_due());
            assert_eq!(known, (Some(Killed::Deadline), Some(6)));
        }
    }

    #[test]
    fn a_disconnected_worker_is_looked_after_until_it_falls_silent() {
        let [_, _, mut starting, mut slot, _] = each_state();
        assert!(is_refused(&mut starting, |slot| slot.disconnect(1)));
        assert!(is_refused(&mut slot, Slot::fall_silent) && slot.is_connected());
        assert!(is_refused(&mut slot, |slot| slot.poll_again_at(2)));
        slot.disconnect(10);
        assert_eq!(
            (slot.disconnected_since(), slot.polled_at()),
            (Some(10), Some(10))
        );
        assert!(is_refused(&mut slot, |slot| slot.disconnect(11)));
        slot.poll_again_at(12);
        assert_eq!(
            (slot.disconnected_since(), slot.polled_at()),
            (Some(10), Some(12))
        );
        slot.fall_silent();
        assert!(!slot.is_connected());
        assert_eq!((slot.disconnected_since(), slot.polled_at()), (None, None));
        assert!(is_refused(&mut slot, |slot| slot.disconnect(13)));
    }

    #[test]
    fn a_worker_that_gets_ahead_stands_since_then() {
        let [_, _, _, mut slot, _] = each_state();
        assert_eq!(slot.stands_since(4, 100), 100);
        assert_eq!(slot.stands_since(4, 200), 100);
        slot.excuse(50);
        assert_eq!(slot.stands_since(4, 300), 150, "it could not");
        assert_eq!(slot.stands_since(3, 350), 150, "nobody gets behind");
        assert_eq!(slot.stands_since(5, 400), 400);
        slot.look_at(500);
        assert_eq!(slot.stands_since(1, 450), 450, "these are other items");
    }

    #[test]
    fn a_departure_has_one_reason() {
        let mut slot = Slot::new(None);
        slot.plan_departure(ExitReason::MaxAge);
        slot.plan_departure(ExitReason::MaxMemory);
        assert_eq!(slot.departure(), Departure::Planned(ExitReason::MaxAge));
        slot.must_go(ExitReason::Resized);
        slot.retired(ExitReason::Closed);
        slot.must_go(ExitReason::Idle);
        slot.plan_departure(ExitReason::MaxAge);
        assert_eq!(slot.departure(), Departure::Retired(ExitReason::Resized));
    }

    #[test]
    fn a_place_is_left_once_its_worker_is_gone() {
        let mut vacant = Slot::new(Some(position()));
        assert!(!vacant.leave(), "there was no worker");
        assert!(vacant.is_vacant());
        vacant.occupy(position());
        assert_eq!(vacant.position(), Some(position()));

        let [_, _, _, mut slot, _] = each_state();
        assert!(slot.leave());
        assert_eq!(
            (slot.position(), slot.last_position()),
            (None, Some(position()))
        );
        drop(slot.let_go());
        assert!(!slot.is_vacant(), "the position waits for that");
        assert_eq!(slot.is_gone(), Some(position()));
        assert!(slot.is_vacant());
    }
}
