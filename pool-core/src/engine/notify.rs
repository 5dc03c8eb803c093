//! What the engine tells others: outcomes to who waits for them, notices to the pool's hooks,
//! events to a tracer, and numbers to who asks.
//!
//! All of it is collected under the lock. Outcomes and notices run code of the user's, so they are
//! taken away when the lock is given up.

use std::mem;

use super::parent_channel::ParentChannel;
use super::refused_call;
use super::work::Delivery;
use super::work_unit::Done;
use crate::backend::lifecycle_options::Hooks;
use crate::error::task_error::TaskError;
use crate::observe::stats::Stats;
use crate::observe::trace::Event;
use crate::observe::tracer::Tracer;
use crate::observe::worker_exit::WorkerExit;
use crate::process::worker_info::WorkerInfo;
use crate::sys;
use crate::task::callbacks::Job;
use crate::task::chunk::Chunk;
use crate::task::chunk_outcome::Outcomes;

/// See the module.
pub(super) struct Notify {
    /// What is to be delivered to whom, as soon as the lock is free.
    deliveries: Vec<Delivery>,
    /// Outcomes of which the call has to decide, as soon as the lock is free, whether they stay.
    undecided: Vec<Delivery>,
    /// How many items these have, with those that were taken away and are not decided.
    deciding: u64,
    /// What is to be reported of workers.
    notices: Vec<Job>,
    hooks: Hooks,
    /// Where to report what happens.
    tracer: Tracer,
    stats: Stats,
    /// Items without an outcome whose submitter does not come to look for it.
    unattended: u64,
}

impl Notify {
    pub(super) fn new(hooks: Hooks) -> Self {
        Self {
            deliveries: Vec::new(),
            undecided: Vec::new(),
            deciding: 0,
            notices: Vec::new(),
            hooks,
            tracer: Tracer::default(),
            stats: Stats::default(),
            unattended: 0,
        }
    }

    /// A chunk has come.
    pub(super) fn submitted(&mut self, chunk: &mut Chunk) {
        chunk.trace_items(&self.tracer);
        self.stats.submitted += u64::from(chunk.count);
        if !chunk.attended {
            self.unattended += u64::from(chunk.count);
        }
    }

    /// A chunk is about to be sent to a worker. It may have been submitted before the trace began.
    pub(super) fn sending(&self, chunk: Option<&mut Chunk>) {
        if self.tracer.wants_items()
            && let Some(chunk) = chunk
        {
            chunk.trace_since(&self.tracer, 0);
        }
    }

    /// The items of a chunk have this outcome.
    pub(super) fn fail(&mut self, unit: Chunk, error: TaskError) {
        let outcomes = Outcomes::All(error);
        let delivery = self.delivery(Done { unit, outcomes }, 0);
        self.deliver(delivery);
    }

    /// Outcomes of items that took so long, in nanoseconds, on their way to who waits for them.
    /// `None`: nobody does, or there are no items.
    pub(super) fn delivery(&self, mut done: Done<Chunk>, took_ns: u64) -> Option<Delivery> {
        if self.tracer.wants_failures() && done.outcomes.has_errors() {
            done.unit.trace_failures(&self.tracer);
        }
        Delivery::new(done, took_ns)
    }

    /// These items have outcomes.
    pub(super) fn deliver(&mut self, delivery: Option<Delivery>) {
        if let Some(delivery) = delivery {
            if delivery.is_undecided() {
                return self.ask(delivery);
            }
            if !delivery.attended {
                self.unattended -= delivery.count();
            }
            delivery.count_in(&mut self.stats);
            self.deliveries.push(delivery);
        }
    }

    /// The call is asked whether these outcomes stay. Until it has answered, they count as none.
    #[cold]
    fn ask(&mut self, delivery: Delivery) {
        self.deciding += delivery.count();
        self.undecided.push(delivery);
    }

    /// Whether outcomes wait for the lock to be free.
    pub(super) fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty() || self.has_undecided()
    }

    /// Whether some of them are undecided.
    pub(super) fn has_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Takes these away, to be decided.
    pub(super) fn take_undecided(&mut self) -> Vec<Delivery> {
        mem::take(&mut self.undecided)
    }

    /// One with so many items was decided, and this of it stays.
    pub(super) fn decided(&mut self, count: u64, ended: Vec<Delivery>) {
        self.deciding -= count;
        for delivery in ended {
            self.deliver(Some(delivery));
        }
    }

    /// Whether items may come back that have ended.
    pub(super) fn is_deciding(&self) -> bool {
        self.deciding > 0
    }

    /// How many there are of these.
    pub(super) fn deciding(&self) -> u64 {
        self.deciding
    }

    /// Whether items have no outcome whose submitter does not come to look for it.
    pub(super) fn has_unattended(&self) -> bool {
        self.unattended > 0
    }

    /// Moves what is to be delivered, as soon as the lock is free, into `batch`, which is empty.
    pub(super) fn swap_deliveries(&mut self, batch: &mut Vec<Delivery>) {
        mem::swap(&mut self.deliveries, batch);
    }

    /// What is to be reported of workers, in order; `None`: nothing.
    pub(super) fn take_notices(&mut self) -> Option<impl Iterator<Item = Job>> {
        (!self.notices.is_empty()).then(|| self.notices.drain(..))
    }

    /// A worker process is on its way.
    pub(super) fn worker_launched(&mut self) {
        self.stats.workers_started += 1;
    }

    /// A worker answers: its process has started.
    pub(super) fn worker_reached(&mut self, position: usize, info: &WorkerInfo) {
        self.tracer.worker_up(info, position);
        if let Some(hook) = &self.hooks.start {
            let (hook, info) = (hook.clone(), info.clone());
            self.notices.push(Box::new(move || hook(&info)));
        }
    }

    /// A worker is gone that nobody had asked to go.
    pub(super) fn worker_lost(&mut self) {
        self.stats.workers_lost += 1;
    }

    /// A worker that was reached is gone.
    pub(super) fn worker_ended(&mut self, info: &WorkerInfo, end: WorkerExit) {
        let ended = &mut self.stats.workers_ended;
        *ended.entry(end.reason()).or_default() += 1;
        self.tracer.worker_ended(info, end.reason());
        if let Some(hook) = &self.hooks.death {
            let (hook, info) = (hook.clone(), info.clone());
            self.notices.push(Box::new(move || hook(&info, &end)));
        }
    }

    /// A worker's sandbox has refused these system calls.
    #[cold]
    pub(super) fn calls_refused(&mut self, info: &WorkerInfo, calls: impl Iterator<Item = u32>) {
        for call in calls.map(refused_call::name) {
            self.tracer.call_refused(info, call.clone());
            if let Some(hook) = &self.hooks.refusal {
                let (hook, info) = (hook.clone(), info.clone());
                self.notices.push(Box::new(move || hook(&info, &call)));
            }
        }
    }

    /// Counts the bytes that went through rings that are closed now.
    pub(super) fn count_bytes(&mut self, channel: &ParentChannel) {
        channel.count(&mut self.stats);
    }

    /// What was counted so far.
    pub(super) fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// A worker has done a chunk, of which somebody wants to know.
    #[cold]
    pub(super) fn chunk_done(&self, chunk: &Chunk, info: &WorkerInfo, took: u64) {
        let event = Event::Chunk {
            worker: info.clone(),
            call: chunk.call_name(),
            first: chunk.first,
            items: chunk.count,
            took,
            at: sys::now_ns(),
        };
        self.tracer.tell_chunk(event, took);
    }

    /// Where it reports what happens.
    pub(super) fn tracer(&self) -> &Tracer {
        &self.tracer
    }
}
