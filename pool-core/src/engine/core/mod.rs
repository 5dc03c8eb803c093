//! The state of a pool behind its one lock, and what is done to it: the scheduler's decisions
//! carried out on the workers' rings.

mod cancel;
mod deadlines;
mod dispatch;
mod ending;
mod parting;
mod prepare;
mod replacing;
mod report;
mod retrying;
mod salvage;
#[cfg(feature = "tracing")]
mod span_keeper;
mod timers;
mod workers;

use std::ptr;
use std::sync::Arc;

use super::booking::{Booking, Drained};
use super::end::End;
use super::leadership::{LeadershipState, RingWatcher};
use super::lifecycle::Lifecycle;
use super::notify::Notify;
use super::peer::Peer;
use super::positions::PositionId;
use super::published_tails::PublishedTails;
use super::scheduler::Scheduler;
use super::slot_id::{PerSlot, SlotId};
use super::terminating::TerminatingWorkers;
use super::token::Token;
use super::work::Delivery;
use super::work_unit::{Done, WorkUnit};
use super::worker_process::Process;
use super::worker_slot::{Killed, Slot};
use crate::backend::config::ValidatedConfig;
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::tracer::Tracer;
use crate::shm::ring::Corrupt;
use crate::sync::thread;
use crate::sys;
use crate::task::callbacks::Job;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::{ChunkOutcome, Outcomes};
use crate::task::open_input::OpenInput;
use crate::task::target::Target;

/// See the module.
pub(super) struct Core {
    config: ValidatedConfig,
    scheduler: Scheduler<Chunk>,
    slots: PerSlot<Slot>,
    /// Workers that are in no slot any more, and not gone.
    terminating: TerminatingWorkers,
    lifecycle: Lifecycle,
    /// Something was drained since work was last handed out: a worker may have nothing to do, and
    /// nothing else may ever happen in this pool.
    dispatch_due: bool,
    /// The supervisor does not know yet that it has something to do: a worker is to be launched,
    /// or was killed.
    has_errand: bool,
    end: End,
    /// The supervisor has ended.
    has_no_supervisor: bool,
    /// What is to be told to others.
    notify: Notify,
    drained: Drained,
    /// Chunks that are not to begin any more, for a moment.
    refused: Vec<Chunk>,
    /// How many threads wait for room in the queue.
    awaiting_room: usize,
    /// When a call that is here has its deadline, in nanoseconds, or earlier; `u64::MAX`: none has
    /// one.
    next_deadline: u64,
    /// A thread waits for the end, and tasks that emit values do not wait for their readers.
    is_joined: bool,
    /// When the queue was last looked through for tasks that were cancelled, in nanoseconds.
    swept_at: u64,
    /// When to do that next, in nanoseconds: there may be some.
    sweep_at: Option<u64>,
    /// Processors of this machine.
    processors: usize,
    /// Which thread looks into the rings.
    watcher: RingWatcher,
    leadership: LeadershipState,
    /// The chunks that are being filled from inputs that may keep the filling thread waiting.
    open: Vec<Arc<dyn OpenInput>>,
    /// Tasks that were submitted, unless they are attended, since a submitter has looked into the
    /// rings.
    submitted: u32,
    /// A submitter has found something there since the supervisor has asked.
    drained_early: bool,
    /// Something may still run whose submitter will not come any more.
    is_orphaned: bool,
    /// When the scheduler wants to look for an imbalance again, in nanoseconds.
    rebalance_at: Option<u64>,
}

impl Core {
    pub(super) fn new(config: ValidatedConfig) -> Self {
        let lifecycle = Lifecycle::new(config.processes);
        let slots = lifecycle
            .positions()
            .all()
            .map(|position| Slot::new(Some(position)));
        Self {
            scheduler: Scheduler::new(config.processes, config.max_tasks_per_child),
            slots: slots.collect(),
            terminating: TerminatingWorkers::default(),
            lifecycle,
            dispatch_due: false,
            has_errand: false,
            end: End::default(),
            has_no_supervisor: false,
            notify: Notify::new(config.lifecycle.hooks.clone()),
            drained: Drained::default(),
            refused: Vec::new(),
            awaiting_room: 0,
            next_deadline: u64::MAX,
            is_joined: false,
            swept_at: 0,
            sweep_at: None,
            processors: thread::available_parallelism().map_or(1, usize::from),
            watcher: RingWatcher::None,
            leadership: LeadershipState::default(),
            open: Vec::new(),
            submitted: 0,
            drained_early: false,
            is_orphaned: false,
            rebalance_at: None,
            config,
        }
    }

    /// Takes a new chunk.
    pub(super) fn submit(&mut self, mut chunk: Chunk) {
        self.notify.submitted(&mut chunk);
        // Decided first, so that an ordinary chunk is moved once: that costs as much as all else.
        if chunk.ext.is_none() && self.end.is_open() && !self.scheduler.has_priorities() {
            self.scheduler.enqueue(chunk);
        } else {
            self.submit_special(chunk);
        }
    }

    #[inline(never)]
    fn submit_special(&mut self, mut chunk: Chunk) {
        if let Some(reason) = self.end.refusal() {
            return self.notify.fail(chunk, reason);
        }
        if !self.admit(&mut chunk) {
            return self.refuse(chunk);
        }
        let Some(chunk) = self.delay(chunk) else {
            return;
        };
        self.outrank(chunk.priority());
        self.scheduler.submit(chunk);
    }

    /// What has not begun goes back into the queue, behind what comes with this priority.
    fn outrank(&mut self, priority: i32) {
        for slot in self.scheduler.outranked(priority) {
            self.begin_reclaim(slot);
        }
    }

    /// Sees to what a chunk asks for before it waits. `false`: it is not to begin any more.
    fn admit(&mut self, chunk: &mut Chunk) -> bool {
        self.resolve_target(chunk);
        if let Some(deadline) = chunk.deadline() {
            if chunk.is_overdue(sys::now_ns()) {
                return false;
            }
            self.next_deadline = self.next_deadline.min(deadline);
        }
        true
    }

    /// Fails a chunk that is not to begin any more.
    fn refuse(&mut self, chunk: Chunk) {
        let why = chunk.refusal().unwrap_or_else(TaskError::cancelled);
        self.notify.fail(chunk, why);
    }

    /// Chooses the position whose worker is to run a chunk, if that is not any.
    fn resolve_target(&self, chunk: &mut Chunk) {
        if let Some(target) = chunk.target_mut() {
            let open = self.lifecycle.positions().open();
            if let Some(position) = target.choose(open).and_then(|nth| self.nth_open(nth)) {
                *target = Target::Position(position);
            }
        }
    }

    /// The number of the open position that has so many open ones before it.
    fn nth_open(&self, nth: usize) -> Option<usize> {
        let positions = self.lifecycle.positions();
        let mut open = positions.all().filter(|it| !positions.is_closed(*it));
        open.nth(nth).map(PositionId::index)
    }

    /// Takes in what the workers have put into their rings, and hands out what waits. Says
    /// whether anything arrived.
    pub(super) fn drain_and_dispatch(&mut self) -> bool {
        let news = self.drain_all();
        if self.dispatch_due || self.scheduler.has_queued() {
            self.dispatch();
        }
        news
    }

    /// Hands out what waits if something was drained, by whomever, since that was last done.
    pub(super) fn dispatch_if_due(&mut self) {
        if self.dispatch_due {
            self.dispatch();
        }
    }

    /// Whether something was drained since work was last handed out.
    pub(super) fn owes_dispatch(&self) -> bool {
        self.dispatch_due
    }

    /// All was handed out that could be.
    pub(super) fn is_dispatched(&mut self) {
        self.dispatch_due = false;
    }

    pub(super) fn drain_all(&mut self) -> bool {
        let mut news = false;
        for slot in self.slots.ids() {
            if self.is_active(slot) {
                news |= self.drain_slot(slot);
            }
        }
        news
    }

    /// What a thread can look at without the lock to learn of news.
    pub(super) fn published(&self) -> PublishedTails {
        let mut published = PublishedTails::default();
        for slot in self.slots.ids() {
            if self.is_active(slot)
                && let Some((_, channel)) = self.slots[slot].up()
                && !published.add(channel)
            {
                break;
            }
        }
        published
    }

    /// Whether a slot's worker has something to say or to hear.
    fn is_active(&self, slot: SlotId) -> bool {
        self.scheduler.is_busy(slot)
            || self.scheduler.is_reclaimed(slot)
            || self.scheduler.is_retiring(slot)
    }

    pub(super) fn drain_slot(&mut self, slot: SlotId) -> bool {
        if self.slots[slot].is_killed() {
            // What it has done is taken in when it is dead.
            return false;
        }
        match self.exchange(slot) {
            Ok(news) => {
                self.dispatch_due |= news;
                news
            }
            Err(Corrupt) => {
                self.kill(slot, Killed::ProtocolViolation);
                false
            }
        }
    }

    /// Moves bytes both ways between the parent and one worker.
    fn exchange(&mut self, slot: SlotId) -> Result<bool, Corrupt> {
        let Some((process, channel)) = self.slots[slot].up_mut() else {
            return Ok(false);
        };
        let Some(info) = process.info() else {
            return Ok(false);
        };
        let mut drained = std::mem::take(&mut self.drained);
        let peer = Peer::alive(info, process);
        let taken = channel.drain(&mut Booking {
            slot,
            peer,
            scheduler: &mut self.scheduler,
            drained: &mut drained,
        });
        let news = std::mem::take(&mut drained.news);
        self.settle_drained(slot, drained);
        taken?;
        if news {
            self.scheduler.progressed(slot);
        }
        let Some((process, channel)) = self.slots[slot].up_mut() else {
            return Ok(news);
        };
        if !channel.has_passed_all() && !self.scheduler.is_busy(slot) {
            channel.forget_unpassed();
        }
        if channel.send_on(process.tie.fd_socket())? {
            self.scheduler.unchoke(slot);
        }
        if self.scheduler.is_reclaimed(slot) && channel.is_drained()? {
            self.scheduler.finish_reclaim(slot);
            channel.region().finish_reclaim();
            // Its worker can have something else, or can go: the caller must see to that.
            return Ok(true);
        }
        Ok(news)
    }

    /// Sees to what a look into a worker's ring has brought.
    fn settle_drained(&mut self, slot: SlotId, mut drained: Drained) {
        for sink in drained.awaited.drain(..) {
            self.notify.deliver(Some(Delivery::of_emission(sink)));
        }
        for (flight, took_ns) in drained.finished.drain(..) {
            self.finished(slot, flight.into_done(), took_ns);
        }
        self.drained = drained;
    }

    /// A worker has finished a chunk.
    pub(super) fn finished(&mut self, slot: SlotId, mut done: Done<Chunk>, took_ns: u64) {
        self.slots[slot].was_busy(took_ns);
        if done.unit.is_initializer {
            let mut part = ChunkOutcome {
                first: 0,
                count: done.unit.count,
                took_ns,
                ext: done.unit.ext.take(),
                outcomes: done.outcomes,
            };
            part.tell_tracer();
            let failed = match part.outcomes {
                Outcomes::One(Some(Ok(_))) => None,
                Outcomes::One(Some(Err(error))) => Some(error),
                _ => Some(TaskError::new(
                    TaskErrorKind::Initializer,
                    "the initializer was not run",
                )),
            };
            self.prepared(slot, failed);
        } else {
            self.slots[slot].worked(done.unit.count);
            if self.notify.tracer().wants_chunk(took_ns)
                && let Some((process, _)) = self.slots[slot].up()
                && let Some(info) = process.info()
            {
                self.notify.chunk_done(&done.unit, info, took_ns);
            }
            self.lifecycle.chunk_finished();
            #[allow(unused_mut, reason = "events alone have origins")]
            let mut delivery = self.notify.delivery(done, took_ns);
            #[cfg(feature = "tracing")]
            if let Some(delivery) = &mut delivery {
                self.await_events(slot, delivery);
            }
            self.notify.deliver(delivery);
            if self.config.lifecycle.looks_after() {
                self.check_limits(slot);
            }
        }
    }

    /// Says to every worker with work whether to ring; there is no need while somebody is awake.
    pub(super) fn attend(&mut self, watcher: RingWatcher) {
        self.watcher = watcher;
        for slot in self.slots.ids() {
            let active = self.is_active(slot);
            if let Some((_, channel)) = self.slots[slot].up_mut() {
                channel.listen(active && watcher.wants_bells());
            }
        }
    }

    /// The worker in a slot, if it is this one.
    pub(super) fn process(&self, token: Token) -> Option<&Process> {
        let process = self.slots.get(token.slot)?.phase().process()?;
        (process.number == token.number).then_some(process)
    }

    /// This worker, also if it is in no slot any more.
    pub(super) fn worker(&self, token: Token) -> Option<&Process> {
        let terminating = self.terminating.processes();
        let mut terminating = terminating.filter(|process| process.number == token.number);
        self.process(token).or_else(|| terminating.next())
    }

    /// Whether a worker could begin an item at once, if there was one.
    pub(super) fn has_room_for_work(&self) -> bool {
        self.scheduler.has_room_for_work()
            || (!self.scheduler.has_queued() && self.lifecycle.positions().parked().is_some())
    }

    /// The open chunks, if a worker could begin an item of one.
    pub(super) fn open_for_idle(&self) -> Vec<Arc<dyn OpenInput>> {
        if self.open.is_empty() || !self.has_room_for_work() {
            return Vec::new();
        }
        self.open.clone()
    }

    /// The same for the supervisor, if nobody else looks after them.
    pub(super) fn open_for_supervisor(&self) -> Vec<Arc<dyn OpenInput>> {
        let is_theirs = if self.leadership.has_leader() {
            self.is_awake()
        } else {
            !self.leadership.supervisor_stands_in() && !self.is_supervised()
        };
        if is_theirs {
            return Vec::new();
        }
        self.open_for_idle()
    }

    /// Whether the awake parent may spin: there is a processor that no worker needs.
    pub(super) fn may_spin(&self) -> bool {
        self.scheduler.busy() < self.processors
    }

    /// Whether somebody must look into the rings even if no thread comes to do so.
    pub(super) fn needs_supervision(&self) -> bool {
        self.notify.has_unattended()
            || self.is_orphaned
            || self.leadership.supervisor_stands_in()
            || !self.end.is_open()
    }

    /// Something runs whose end must be heard of, though no thread waits for it.
    pub(super) fn listen_for_orphans(&mut self) {
        self.is_orphaned = true;
    }

    /// Nothing runs. If nothing is to, either, what comes next has somebody who waits for it.
    pub(super) fn forget_orphans(&mut self) {
        self.is_orphaned &= !self.scheduler.is_empty() || self.notify.is_deciding();
    }

    /// Whether the thread that looks into the rings is awake, and so keeps the balance.
    pub(super) fn is_awake(&self) -> bool {
        self.watcher == RingWatcher::Polling
    }

    /// Whether the supervisor looks into the rings.
    pub(super) fn is_supervised(&self) -> bool {
        matches!(
            self.watcher,
            RingWatcher::Supervisor | RingWatcher::Coalescing
        )
    }

    /// Whether a worker has something to say or to hear.
    pub(super) fn is_busy(&self) -> bool {
        self.slots.ids().any(|slot| self.is_active(slot))
    }

    /// The supervisor hears the bells, and looks into the rings.
    pub(super) fn is_heard_by_supervisor(&self) -> bool {
        self.leadership.is_heard() && self.is_supervised()
    }

    /// A thread leads, and is awake.
    pub(super) fn is_led_awake(&self) -> bool {
        self.leadership.has_leader() && self.is_awake()
    }
}

/// What the threads of the pool are told, and what they say.
impl Core {
    /// Who leads, and who would.
    pub(super) fn leadership(&mut self) -> &mut LeadershipState {
        &mut self.leadership
    }

    /// The coming and going of the workers.
    pub(super) fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The slots with their workers.
    pub(super) fn slots(&self) -> &PerSlot<Slot> {
        &self.slots
    }

    /// How many chunks wait for a worker.
    pub(super) fn queue_len(&self) -> usize {
        self.scheduler.queue_len()
    }

    /// Whether a thread waits for room in the queue.
    #[inline]
    pub(super) fn awaits_room(&self) -> bool {
        self.awaiting_room > 0
    }

    /// One more thread waits for room, or does not any more.
    pub(super) fn room_is_awaited(&mut self, waits: bool) {
        if waits {
            self.awaiting_room += 1;
        } else {
            self.awaiting_room -= 1;
        }
    }

    /// Whether the pool takes tasks.
    pub(super) fn is_open(&self) -> bool {
        self.end.is_open()
    }

    /// Whether the pool has given up all tasks.
    pub(super) fn has_ended(&self) -> bool {
        self.end.has_ended()
    }

    /// Whether the supervisor has something to do of which it is not notified yet. It is to be
    /// notified now.
    pub(super) fn take_errand(&mut self) -> bool {
        std::mem::take(&mut self.has_errand)
    }

    /// The supervisor has ended.
    pub(super) fn supervisor_ended(&mut self) {
        self.has_no_supervisor = true;
    }

    pub(super) fn has_no_supervisor(&self) -> bool {
        self.has_no_supervisor
    }

    /// A chunk is being filled from an input that may keep the filling thread waiting.
    pub(super) fn watch(&mut self, open: Arc<dyn OpenInput>) {
        self.open.push(open);
    }

    /// It is not any more.
    pub(super) fn unwatch(&mut self, open: &dyn OpenInput) {
        self.open
            .retain(|other| !ptr::addr_eq(Arc::as_ptr(other), open));
    }

    /// Whether chunks are being filled.
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether outcomes wait for the lock to be free.
    pub(super) fn has_deliveries(&self) -> bool {
        self.notify.has_deliveries()
    }

    /// Takes the outcomes away, and leaves the memory for the next ones.
    pub(super) fn swap_deliveries(&mut self, batch: &mut Vec<Delivery>) {
        self.notify.swap_deliveries(batch);
    }

    /// Takes what is to be reported of workers, if there is anything.
    pub(super) fn take_notices(&mut self) -> Option<impl Iterator<Item = Job>> {
        self.notify.take_notices()
    }

    /// Where it reports what happens.
    pub(super) fn tracer(&self) -> &Tracer {
        self.notify.tracer()
    }
}
