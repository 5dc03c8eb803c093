//! A chunk as it travels to another machine, and what runs it there.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::call_id::CallId;
use super::chunk::Chunk;
use super::chunk_ext::ChunkExt;
use super::chunk_outcome::{ChunkOutcome, CompletionSink, reported};
use super::context::{Context, MAX_CONTEXT};
use super::emissions::{Emissions, Next};
use super::executor::{Cancel, Executor};
use super::options::{ChunkOptions, Timeout, WaitingOptions};
use super::outcome::{Outcome, from_bytes, to_bytes};
use super::outcome_batch::OutcomeBatch;
use crate::broadcast::{Attachments, Belongings, BroadcastContent, ContentId, Needs, SharedMemory};
use crate::error::task_error::{TaskError, TaskErrorKind};
use crate::observe::item_run::Run;
use crate::panic::catch::{catch_and_discard, with_tasks};
use crate::passing::{self, Outgoing, arrived_here};
use crate::shm::build_identity::{BuildId, build_id};
use crate::shm::item_timing::ItemTiming;
use crate::shm::protocol;
use crate::shm::protocol::RecordKind;
use crate::sys;
use crate::worker::ChunkRun;
use crate::worker::cancel_flag::{CancelFlag, with_flag};
use crate::worker::context;
use crate::worker::function::FunctionId;

/// Encoded items of one call that can leave this process: what a chunk [is made
/// of](Chunk::into_parts), but for where its outcomes go.
///
/// It travels as serde says or as [`to_bytes`](Self::to_bytes), and runs wherever the same
/// executable does: in a thread by [`run`](Self::run), or in a pool by
/// [`submit_to`](Self::submit_to). Its receiver believes nothing of it: it runs a function of this
/// program that some call here is of, with arguments that are decoded with all checks, or nothing.
/// But which function, and on what, the sender says. So a pool takes chunks only from those who may
/// do that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Carried")]
pub struct EncodedChunk {
    build: BuildId,
    /// The number of the function.
    function: u64,
    first: u64,
    count: u32,
    /// What the function gets with each item: see `worker::context`. Empty if it gets nothing.
    context: Bytes,
    /// The items, each with its head; see `protocol`.
    items: Bytes,
    options: WaitingOptions,
    /// The memory that handles in the items and in the context mean.
    needs: Needs,
    /// See [`name`](Self::name).
    name: Option<Box<str>>,
    /// The descriptors that stand in the items, as long as these are in their own process.
    #[serde(skip)]
    descriptors: Vec<(u32, Arc<Outgoing>)>,
}

/// The same before it is known whether it makes sense.
#[derive(Deserialize)]
struct Carried {
    build: BuildId,
    function: u64,
    first: u64,
    count: u32,
    context: Bytes,
    items: Bytes,
    options: WaitingOptions,
    needs: Needs,
    name: Option<Box<str>>,
}

impl TryFrom<Carried> for EncodedChunk {
    type Error = &'static str;

    fn try_from(carried: Carried) -> Result<Self, Self::Error> {
        let Carried {
            build,
            function,
            first,
            count,
            context,
            items,
            options,
            needs,
            name,
        } = carried;
        let is_first = usize::try_from(first).is_ok_and(|first| {
            let end = first.checked_add(count as usize);
            end.is_some_and(|end| isize::try_from(end).is_ok())
        });
        if count == 0 || !is_first {
            return Err("a chunk of no items, or of too many");
        }
        if options.now().timeout.is_some_and(|it| it.is_zero()) {
            return Err("no item ends in no time");
        }
        if context.len() > MAX_CONTEXT {
            return Err("a context that is too long");
        }
        let bytes = items.as_slice();
        let mut rest = &bytes[..];
        for _ in 0..count {
            let (_, after) = protocol::split_item(rest).ok_or("fewer items than it says")?;
            rest = after;
        }
        if !rest.is_empty() {
            return Err("more items than it says");
        }
        Ok(Self {
            build,
            function,
            first,
            count,
            context,
            items,
            options,
            needs,
            name,
            descriptors: Vec::new(),
        })
    }
}

impl EncodedChunk {
    pub(crate) fn new(
        function: FunctionId,
        indices: Range<usize>,
        context: Bytes,
        items: Bytes,
        options: ChunkOptions,
        needs: Needs,
        descriptors: Vec<(u32, Arc<Outgoing>)>,
    ) -> Self {
        Self {
            build: build_id(),
            function: function.number(),
            first: indices.start as u64,
            count: indices.len() as u32,
            context,
            items,
            options: WaitingOptions::new(options),
            needs,
            name: None,
            descriptors,
        }
    }

    /// The same of a call with a name.
    pub(crate) fn named(mut self, name: Option<&str>) -> Self {
        self.name = name.map(Into::into);
        self
    }

    /// How many items there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The index of the first item in its call; the others follow it.
    #[must_use]
    pub fn first_index(&self) -> usize {
        self.first as usize
    }

    /// The build of the program that has encoded it, which alone can run it.
    #[must_use]
    pub fn build(&self) -> BuildId {
        self.build
    }

    /// The function that the items are for. `None`: it is of another build, or lies.
    #[must_use]
    pub fn function(&self) -> Option<FunctionId> {
        (self.build == build_id())
            .then(|| FunctionId::from_number(self.function))
            .flatten()
    }

    /// What the call asks for, with the [deadline](ChunkOptions::deadline) and the
    /// [delay](ChunkOptions::delay) that are left now. So is it with what
    /// [`to_bytes`](Self::to_bytes) says, and [`submit_to`](Self::submit_to): a chunk may wait,
    /// here and there.
    #[must_use]
    pub fn options(&self) -> ChunkOptions {
        self.options.now()
    }

    /// What the call is [named](crate::Call::name). `None`: it has no name of its own.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How many bytes its items and their context have.
    #[must_use]
    pub fn size(&self) -> usize {
        self.items.len() + self.context.len()
    }

    /// The same with this many [retries](ChunkOptions::retries): those that the receiver is to see
    /// to.
    #[must_use]
    pub fn with_retries(mut self, retries: u32) -> Self {
        let options = self.options.now();
        self.options = WaitingOptions::new(ChunkOptions { retries, ..options });
        self
    }

    /// The same to begin at once, since the sender has kept the [delay](ChunkOptions::delay).
    #[must_use]
    pub fn without_delay(mut self) -> Self {
        let options = self.options.now();
        let delay = Duration::ZERO;
        self.options = WaitingOptions::new(ChunkOptions { delay, ..options });
        self
    }

    /// How many bytes the items have.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        self.items.len()
    }

    /// Some of the items, by their indices in the call: to be tried again, or to be sent to
    /// different machines.
    ///
    /// # Panics
    /// When there are no such items.
    #[must_use]
    pub fn part(&self, indices: Range<usize>) -> Self {
        let own = self.first_index()..self.first_index() + self.count();
        assert!(
            !indices.is_empty() && own.start <= indices.start && indices.end <= own.end,
            "the chunk has the items {own:?}, not {indices:?}"
        );
        let bytes = self.items.as_slice();
        let (_, rest) = protocol::split_items(&bytes, indices.start - own.start);
        let (items, _) = protocol::split_items(rest, indices.len());
        Self {
            first: indices.start as u64,
            count: indices.len() as u32,
            context: self.context.clone(),
            items: items.into(),
            needs: self.needs.clone(),
            name: self.name.clone(),
            descriptors: passing::in_places(
                &self.descriptors,
                indices.start - own.start,
                indices.len(),
            ),
            ..*self
        }
    }

    /// The values that handles in the items mean, as far as they are in this process: what goes
    /// where the chunk goes, unless it is [there](Self::missing).
    #[must_use]
    pub fn contents(&self) -> Vec<BroadcastContent> {
        self.needs.contents()
    }

    /// The values that handles in the items mean and that are not in this process: to be got from
    /// the sender, and [provided](Self::provide), before the chunk runs. Without them each item
    /// fails.
    #[must_use]
    pub fn missing(&self) -> Vec<ContentId> {
        self.needs.missing(&Needs::default())
    }

    /// Takes a value that handles in the items mean. `false`: they mean no such value.
    pub fn provide(&mut self, content: &BroadcastContent) -> bool {
        self.needs.provide(content)
    }

    /// The chunk as bytes, without the [contents](Self::contents).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The chunk that these bytes are, which may come from anywhere.
    ///
    /// # Errors
    /// Of kind [`Decode`](TaskErrorKind::Decode), when they are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TaskError> {
        from_bytes(bytes, "chunk")
    }

    /// What is needed to run the items here, or why they cannot be.
    fn prepare(&self, carries_values: bool) -> Result<Prepared, TaskError> {
        let invalid = |message: &str| TaskError::new(TaskErrorKind::Invalid, message);
        if self.build != build_id() {
            return Err(invalid("the task is of another build of the program"));
        }
        let function = FunctionId::from_number(self.function)
            .ok_or_else(|| invalid("the task's function is none that this program calls"))?;
        if self.options().emits.is_some() && (!carries_values || self.count > 1) {
            return Err(invalid(
                "this pool does not carry the values that a task emits: `stream` needs another one",
            ));
        }
        if self.needs.is_empty() {
            return Ok(Prepared {
                function,
                context: self.context.as_slice().into_owned(),
                items: self.items.clone(),
                memory: Vec::new(),
            });
        }
        let resolved = self.needs.resolve(&Needs::default()).map_err(|error| {
            let message = format!("cannot deserialise the argument: {error}");
            TaskError::new(TaskErrorKind::Decode, message)
        })?;
        let mut items = self.items.as_slice().into_owned();
        resolved.rebase(&mut items);
        let mut context = self.context.as_slice().into_owned();
        resolved.rebase(&mut context);
        Ok(Prepared {
            function,
            context,
            items: items.into(),
            memory: resolved.into_memory(),
        })
    }

    /// Runs the items one after the other in this thread. `sink` is given the outcome of each with
    /// its index, as soon as it is there.
    ///
    /// When the flag is set, no more items begin, and those that have not fail as
    /// [`Cancelled`](TaskErrorKind::Cancelled). A timeout is not kept: nothing ends a thread. After
    /// the call's deadline, no more items begin either. The [delay](crate::ChunkOptions::delay) is
    /// for the caller to keep.
    ///
    /// # Panics
    /// When `sink` has panicked: in the end, and it is not called again.
    pub fn run(&self, flag: &CancelFlag, mut sink: impl FnMut(usize, Outcome)) {
        let mut given = Given {
            next: self.first_index(),
            end: self.first_index() + self.count(),
            sink: &mut sink,
            panic: None,
        };
        let control = self.options().control(None);
        let deadline = control.and_then(|control| control.deadline);
        let why = match self.prepare(false) {
            Ok(prepared) => {
                self.run_prepared(&prepared, flag, deadline, &mut given);
                if flag.is_set() {
                    TaskError::cancelled()
                } else {
                    TaskError::deadline_exceeded(false)
                }
            }
            Err(error) => error,
        };
        while given.next < given.end {
            given.give(why.clone().into());
        }
        if let Some(panic) = given.panic {
            resume_unwind(panic);
        }
    }

    fn run_prepared(
        &self,
        prepared: &Prepared,
        flag: &CancelFlag,
        deadline: Option<u64>,
        given: &mut Given<'_>,
    ) {
        let mut timing = None;
        let mut before = sys::now_ns();
        let _lent = passing::lend(&self.descriptors);
        let mut record = |kind: RecordKind, bytes: &[u8], attachments: Attachments| {
            let result = match kind {
                RecordKind::Time => {
                    timing = ItemTiming::read(bytes);
                    return;
                }
                // Nobody takes them: see `prepare`.
                RecordKind::Emitted | RecordKind::SharedEmitted => return,
                RecordKind::Failure => Err(reported(bytes)),
                RecordKind::Value | RecordKind::Bulk | RecordKind::SharedResult => {
                    let descriptors = arrived_here(attachments.descriptors());
                    Ok(Bytes::from(bytes).with(Belongings {
                        memory: Vec::new(),
                        descriptors,
                    }))
                }
            };
            let memory = attachments.into_memory();
            let result_bytes = result.as_ref().map_or(0, Bytes::len) as u64;
            let needs = if memory.is_empty() {
                Needs::default()
            } else {
                Needs::of_value(bytes, &memory)
            };
            let took_ns = sys::now_ns().saturating_sub(before).max(1);
            given.give(Outcome {
                result,
                took_ns,
                run: timing.take().map(|measure| Run {
                    worker: None,
                    measure,
                    is_whole: true,
                    result_bytes,
                }),
                losses: 0,
                needs,
            });
            before = sys::now_ns();
        };
        with_flag(flag, || {
            with_tasks(|| {
                let _context = context::enter(&prepared.context, false);
                prepared.function.function()(&mut ChunkRun::in_memory(
                    &prepared.items.as_slice(),
                    self.options().measured,
                    Some(flag),
                    deadline,
                    &mut record,
                ));
            });
        });
    }

    /// Runs the items in a pool of this process, as a call of its own. `sink` is given the outcome
    /// of each with its index, from any thread, in any order. It must not wait for the pool, and
    /// its panics are dropped.
    ///
    /// The pool sees to timeouts and retries. Retries are for a worker of this pool; the sender may
    /// try again what is lost with this machine.
    pub fn submit_to(
        &self,
        executor: &Arc<dyn Executor>,
        sink: impl Fn(usize, Outcome) + Send + Sync + 'static,
    ) -> Submitted {
        self.submit_with(executor, None, one_by_one(sink))
    }

    /// The same of an item that [emits values](ChunkOptions::emits). They are taken by
    /// [`poll_value`](Submitted::poll_value), and the task waits for that. The outcome may be given
    /// to `sink` while some of them were not taken yet.
    pub fn stream_to(
        &self,
        executor: &Arc<dyn Executor>,
        sink: impl Fn(usize, Outcome) + Send + Sync + 'static,
    ) -> Submitted {
        self.submit_with(executor, self.emissions(), one_by_one(sink))
    }

    /// The same, of whatever items, and `sink` is given the outcomes that come together at once.
    #[doc(hidden)]
    pub fn batch_to(
        &self,
        executor: &Arc<dyn Executor>,
        sink: impl Fn(OutcomeBatch) + Send + Sync + 'static,
    ) -> Submitted {
        let take = move |part| {
            let batch = OutcomeBatch::of(part);
            catch_and_discard(|| sink(batch));
        };
        self.submit_with(executor, self.emissions(), take)
    }

    /// Where the values go that the item emits, if it does so.
    fn emissions(&self) -> Option<Arc<Emissions>> {
        self.options().emits.map(Emissions::new).map(Arc::new)
    }

    fn submit_with(
        &self,
        executor: &Arc<dyn Executor>,
        emissions: Option<Arc<Emissions>>,
        take: impl Fn(ChunkOutcome) + Send + Sync + 'static,
    ) -> Submitted {
        let forward = Arc::new(Forward {
            // Also where it is one: its outcome should come as soon as it is cancelled.
            call: CallId::of_many(),
            is_abandoned: AtomicBool::new(false),
            emissions: emissions.clone(),
            take,
        });
        let submitted = Submitted {
            executor: executor.clone(),
            call: forward.clone(),
            emissions: emissions.clone(),
        };
        match self.prepare(emissions.is_some()) {
            Ok(prepared) => {
                if let Some(emissions) = &emissions {
                    emissions.keep(&prepared.memory);
                }
                let options = self.options();
                let (first, items) = (self.first_index(), prepared.items);
                let mut chunk = Chunk::new(prepared.function, first, self.count, items, forward);
                chunk.timeout = options.timeout.and_then(Timeout::new);
                chunk.retries = options.retries;
                let context = (!prepared.context.is_empty()).then(|| {
                    Arc::new(Context {
                        bytes: prepared.context,
                        memory: prepared.memory.clone(),
                    })
                });
                chunk.ext = Some(Box::new(ChunkExt {
                    attachments: prepared.memory,
                    descriptors: self.descriptors.clone(),
                    origin: executor.call_span(prepared.function, None),
                    context,
                    control: options.control(self.name.as_deref().map(Into::into)),
                    due: options.due(),
                    emissions,
                    ..ChunkExt::default()
                }));
                if options.measured {
                    chunk.measure();
                    chunk.note_encoding(&vec![0; self.count()]);
                }
                executor.submit(chunk);
            }
            Err(error) => {
                forward.complete(ChunkOutcome::failed(self.first_index(), self.count, error));
            }
        }
        submitted
    }
}

/// Gives each outcome to `sink`, whose panics are dropped.
fn one_by_one(sink: impl Fn(usize, Outcome)) -> impl Fn(ChunkOutcome) {
    move |part| part.into_each(|index, outcome| catch_and_discard(|| sink(index, outcome)))
}

/// The outcomes of items on their way to a user's function, one after the other.
struct Given<'a> {
    /// The index of the next item.
    next: usize,
    end: usize,
    sink: &'a mut dyn FnMut(usize, Outcome),
    /// What the function has panicked with. Then it gets nothing more.
    panic: Option<Box<dyn Any + Send>>,
}

impl Given<'_> {
    fn give(&mut self, outcome: Outcome) {
        let index = self.next;
        self.next += 1;
        if self.panic.is_none() && index < self.end {
            let given = catch_unwind(AssertUnwindSafe(|| (self.sink)(index, outcome)));
            self.panic = given.err();
        }
    }
}

/// A chunk that can run here.
struct Prepared {
    function: FunctionId,
    context: Vec<u8>,
    items: Bytes,
    /// The memory that handles in the items and in the context mean.
    memory: Vec<Arc<SharedMemory>>,
}

/// A chunk from elsewhere that a pool of this process runs: what
/// [`submit_to`](EncodedChunk::submit_to) returns. To drop it changes nothing.
pub struct Submitted {
    executor: Arc<dyn Executor>,
    call: Arc<dyn Abandon>,
    emissions: Option<Arc<Emissions>>,
}

impl Submitted {
    /// The name of the call in this process.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call.call()
    }

    /// Ends it early: what has not begun fails as [`Cancelled`](TaskErrorKind::Cancelled), and what
    /// runs is asked to stop or killed.
    pub fn cancel(&self, how: Cancel) {
        self.call.abandon();
        self.executor.cancel(self.call(), how);
        if let Some(emissions) = &self.emissions {
            emissions.disconnect();
        }
    }

    /// Waits for the next value that the item emits. `None`: it has ended, and all were taken.
    ///
    /// One task waits at a time: the waker of the last one is woken.
    pub fn poll_value(&self, context: &mut TaskContext<'_>) -> Poll<Option<Outcome>> {
        let Some(emissions) = &self.emissions else {
            return Poll::Ready(None);
        };
        if !emissions.poll(Some(context.waker())) {
            return Poll::Pending;
        }
        Poll::Ready(match emissions.next() {
            Next::Value(result) => Some(Outcome::of_emitted(result, emissions.memory())),
            Next::Nothing | Next::End => None,
        })
    }
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitted")
            .field("call", &self.call())
            .finish_non_exhaustive()
    }
}

trait Abandon: CompletionSink {
    fn abandon(&self);
}

/// Hands on the outcomes of a chunk.
struct Forward<T> {
    call: CallId,
    is_abandoned: AtomicBool,
    emissions: Option<Arc<Emissions>>,
    /// Does not panic.
    take: T,
}

impl<T: Fn(ChunkOutcome) + Send + Sync> CompletionSink for Forward<T> {
    fn call(&self) -> CallId {
        self.call
    }

    fn complete(&self, part: ChunkOutcome) {
        if let Some(emissions) = &self.emissions {
            match part.count {
                0 => return emissions.wake(),
                _ => emissions.end(),
            }
        }
        (self.take)(part);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl<T: Fn(ChunkOutcome) + Send + Sync> Abandon for Forward<T> {
    fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}
