//! The calls of a pool: what was submitted, where each piece of it is, and whose each outcome is.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use procpool_core::{
    BroadcastContent, CallId, Completion, ContentId, EncodedChunk, Outcome, OutcomeBatch,
    TaskError, TaskErrorKind,
};

use super::command::Command;
use super::job::{Job, Outcomes};
use super::jobs::Jobs;
use super::sessions::Key;
use super::shared::Shared;
use crate::clock;
use crate::dispatcher::{Dispatcher, JobId, Loss, Verdict};
use crate::message::{Blob, DeliveryId, PieceId};

/// Values that came before the outcomes that mean them.
type Contents = HashMap<ContentId, BroadcastContent>;

/// See the module.
pub(super) struct Calls {
    pub(super) dispatcher: Dispatcher,
    jobs: Jobs,
    /// What is about to be [handed out](Self::hand_out).
    arrived: Vec<(CallId, JobId, Outcomes)>,
    shared: Arc<Shared>,
    is_joined: bool,
}

impl Calls {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            dispatcher: Dispatcher::new(),
            jobs: Jobs::default(),
            arrived: Vec::new(),
            shared,
            is_joined: false,
        }
    }

    /// Whether all have their outcomes.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A chunk was submitted.
    pub(super) fn submit(&mut self, chunk: EncodedChunk, completion: Completion) {
        if completion.is_abandoned() {
            self.shared.chunk_ended();
            completion.finish(&cancelled());
            return;
        }
        let it = Job::new(chunk, completion, clock::now());
        if self.is_joined && it.emits {
            it.completion.keep_unread();
        }
        let is_delayed = it.due.is_some();
        let job = self.jobs.add(it);
        if is_delayed {
            // It keeps no worker.
            self.shared.chunk_ended();
        } else {
            self.dispatch(job);
        }
    }

    fn dispatch(&mut self, job: JobId) {
        if let Some(it) = self.jobs.get(job) {
            self.dispatcher
                .submit(job, it.completion.indices(), it.terms());
        }
    }

    /// The job is not delayed any more. Says whether it was.
    fn undelay(&mut self, job: JobId) -> bool {
        let was_delayed = self.jobs.undelay(job);
        if was_delayed {
            self.shared.chunk_begins();
        }
        was_delayed
    }

    /// What of the job has not begun gets this error. What has begun goes on.
    fn withdraw(&mut self, job: JobId, error: &TaskError) {
        if let Some(it) = self.jobs.get_mut(job) {
            it.withdrawn = Some(error.clone());
        }
        if self.undelay(job)
            && let Some(it) = self.jobs.get(job)
        {
            let items = it.completion.indices();
            return self.fail(job, items, error);
        }
        for items in self.dispatcher.withdraw(job) {
            self.fail(job, items, error);
        }
    }

    /// The call is cancelled.
    pub(super) fn cancel(&mut self, call: CallId, kill: bool) {
        for job in self.jobs.of_call(call) {
            self.withdraw(job, &cancelled());
            for items in self.dispatcher.cancel(job, kill) {
                self.fail(job, items, &cancelled());
            }
        }
    }

    /// These items end with this error.
    fn fail(&mut self, job: JobId, items: Range<usize>, error: &TaskError) {
        let batch = OutcomeBatch::failed(items, error.clone());
        self.deliver(job, Outcomes::Batch(batch));
    }

    fn deliver(&mut self, job: JobId, outcomes: Outcomes) {
        if let Some(it) = self.jobs.get(job) {
            self.arrived.push((it.call, job, outcomes));
        }
    }

    /// Gives what has arrived to those who wait for it.
    pub(super) fn hand_out(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        // The last calls first, and in each the first outcomes: who reads the handles of many calls
        // in their order waits for the first one, and finds the others when it is woken.
        arrived.sort_by_key(|(call, ..)| Reverse(*call));
        for (_, job, outcomes) in arrived.drain(..) {
            let it = self.jobs.get_mut(job);
            if it.is_some_and(|it| it.deliver(outcomes)) {
                self.forget(job);
            }
        }
        self.arrived = arrived;
    }

    fn forget(&mut self, job: JobId) {
        if self.jobs.remove(job).is_some() {
            self.shared.chunk_ended();
        }
        self.dispatcher.forget(job);
    }

    /// Somebody waits for the end: streams are not to wait for a reader.
    pub(super) fn join(&mut self) {
        self.is_joined = true;
        for (_, job) in self.jobs.all().filter(|(_, it)| it.emits) {
            job.completion.keep_unread();
        }
    }

    /// Whatever has no outcome ends with this error.
    pub(super) fn finish_all(&mut self, error: &TaskError) {
        self.hand_out();
        let jobs: Vec<JobId> = self.jobs.all().map(|(job, _)| job).collect();
        for job in jobs {
            self.undelay(job);
            if let Some(it) = self.jobs.remove(job) {
                self.shared.chunk_ended();
                it.completion.finish(error);
            }
            self.dispatcher.forget(job);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_time(&self) -> Option<Duration> {
        self.jobs.next_time()
    }

    /// Ends what has reached its deadline, and dispatches what was delayed until now.
    pub(super) fn tick(&mut self, now: Duration) {
        while let Some(job) = self.jobs.next_expired(now) {
            let text = "the deadline of the call came before it could begin";
            let error = TaskError::other(TaskErrorKind::DeadlineExceeded, text);
            self.withdraw(job, &error);
        }
        while let Some(job) = self.jobs.next_due(now) {
            self.shared.chunk_begins();
            self.dispatch(job);
        }
    }

    /// Hands out what is lost with agents that were given up, which were on these machines.
    pub(super) fn lose<'a>(&mut self, machine: impl Fn(Key) -> Option<&'a str>) {
        while let Some(Loss {
            agent,
            job,
            items,
            attempts,
        }) = self.dispatcher.poll_loss()
        {
            let mut error = TaskError::other(
                TaskErrorKind::WorkerLost,
                "the agent that ran it was lost: it has died, or nothing was heard of it",
            );
            if let Some(machine) = machine(agent) {
                error = error.with_machine(machine);
            }
            let losses = attempts.saturating_sub(1);
            for index in items {
                let lost = Outcome::from(error.clone()).with_losses(losses);
                self.deliver(job, Outcomes::One(index, lost));
            }
        }
    }

    /// An agent has not begun this, and does not.
    pub(super) fn returned(&mut self, key: Key, delivery: DeliveryId) {
        for (job, items) in self.dispatcher.returned(key, delivery) {
            let error = self.jobs.get(job).and_then(|it| it.withdrawn.clone());
            self.fail(job, items, &error.unwrap_or_else(cancelled));
        }
    }

    /// An agent cannot run this piece.
    pub(super) fn failed(&mut self, key: Key, piece: PieceId, error: &TaskError) {
        if let Some((job, ranges)) = self.dispatcher.failed(key, piece) {
            for items in ranges {
                self.fail(job, items, error);
            }
        }
    }

    /// The item of this piece has emitted a value. Says the same as [`emit`](Self::emit).
    pub(super) fn value(
        &mut self,
        key: Key,
        piece: PieceId,
        mut value: Outcome,
        contents: Option<&Contents>,
    ) -> Vec<(Key, PieceId)> {
        if let (Some(job), Some(contents)) = (self.job_of(piece), contents) {
            for id in job.completion.missing(&value) {
                if let Some(content) = contents.get(&id) {
                    value.provide(content);
                }
            }
        }
        let Some(job) = self.dispatcher.emitted(key, piece) else {
            return Vec::new();
        };
        let Some(it) = self.jobs.get_mut(job) else {
            return Vec::new();
        };
        it.values.push_back((piece, value));
        self.emit(job)
    }

    /// Gives emitted values to their reader, as far as there is room. Says for which pieces there
    /// is room for one more, and in which session each of them is.
    pub(super) fn emit(&mut self, job: JobId) -> Vec<(Key, PieceId)> {
        let waker = room_waker(job, &self.shared);
        let mut context = Context::from_waker(&waker);
        let mut rooms = Vec::new();
        let Some(it) = self.jobs.get_mut(job) else {
            return rooms;
        };
        while let Some(piece) = it.emit(&mut context) {
            let key = self.dispatcher.agent_of(piece);
            rooms.extend(key.map(|key| (key, piece)));
        }
        if let Some(outcomes) = it.take_last() {
            self.deliver(job, outcomes);
        }
        rooms
    }

    /// The values that this piece may need.
    pub(super) fn contents_of(&self, piece: PieceId) -> Vec<BroadcastContent> {
        let job = self.job_of(piece);
        job.map(|it| it.chunk.contents()).unwrap_or_default()
    }

    fn job_of(&self, piece: PieceId) -> Option<&Job> {
        self.jobs.get(self.dispatcher.piece(piece)?.0)
    }

    /// Outcomes of a piece have come, with the values that came before them.
    pub(super) fn outcomes(
        &mut self,
        key: Key,
        piece: PieceId,
        mut batch: OutcomeBatch,
        contents: &Contents,
    ) {
        let job = self.job_of(piece);
        let missing = job.map(|it| it.completion.missing_in(&batch));
        for id in missing.into_iter().flatten() {
            if let Some(content) = contents.get(&id) {
                batch.provide(content);
            }
        }
        let count = batch.indices().len();
        let took = u64::try_from(batch.took().as_nanos()).unwrap_or(u64::MAX) / count as u64;
        if batch.errors().next().is_none()
            && let Some((job, losses)) = self.dispatcher.outcomes(key, piece, batch.indices(), took)
        {
            if losses == 0 {
                return self.deliver(job, Outcomes::Batch(batch));
            }
            for (index, outcome) in batch.into_each() {
                self.deliver(job, Outcomes::One(index, outcome.with_losses(losses)));
            }
            return;
        }
        for (index, outcome) in batch.into_each() {
            let may_retry = outcome.error().is_some_and(|it| it.kind().is_retried());
            match self.dispatcher.outcome(key, piece, index, may_retry, took) {
                Verdict::Deliver { job, losses } => {
                    self.deliver(job, Outcomes::One(index, outcome.with_losses(losses)));
                }
                Verdict::Retry | Verdict::Drop => {}
            }
        }
    }

    /// A piece as it travels.
    pub(super) fn encode(&self, piece: PieceId) -> Option<Blob> {
        let (job, items, ..) = self.dispatcher.piece(piece)?;
        let chunk = &self.jobs.get(job)?.chunk;
        let part = if items.len() == chunk.count() {
            chunk.clone()
        } else {
            chunk.part(items)
        };
        Some(Blob(part.with_retries(0).without_delay().to_bytes().into()))
    }
}

/// Says that an item's reader may have made room.
struct RoomWaker {
    job: JobId,
    shared: Arc<Shared>,
}

impl Wake for RoomWaker {
    fn wake(self: Arc<Self>) {
        // Without a thread there is nobody to tell.
        self.shared.tell(Command::Room(self.job));
    }
}

fn room_waker(job: JobId, shared: &Arc<Shared>) -> Waker {
    let shared = shared.clone();
    Waker::from(Arc::new(RoomWaker { job, shared }))
}

fn cancelled() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the task was cancelled")
}
