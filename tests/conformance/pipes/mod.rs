//! A pool over child processes and two pipes to each, as somebody else would write it: from public
//! items alone.
//!
//! A thread of the program works with each child: it hands it one chunk, takes the outcomes, and
//! starts another child if that one has died. What the dead one was at is lost; the rest of its
//! chunk goes to another one.

mod agent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procpool::dump::{Dump, RunningTask, WorkerDump, WorkerState};
use procpool::executor::{
    BroadcastContent, CallId, Callbacks, Cancel, Chunk, Chunking, Completion, ContentId,
    EncodedChunk, Executor, ItemCounts, Outcome, Tracer,
};
use procpool::{
    ExitReason, ExitStatus, JoinError, Pool, Stats, TaskError, TaskErrorKind, WorkerInfo,
    WorkerStats,
};
use procpool_conformance::Subject;
use rustix::event::{PollFd, PollFlags, poll};

pub(crate) use self::agent::be_agent;
use self::agent::{AGENT, BEGUN, CANCEL, CONTENT, DONE, OUTCOME, RUN, read_frame, write_frame};

/// [`PipePool`].
pub(crate) struct Pipes;

impl Subject for Pipes {
    type Pool = PipePool;
    const NAME: &str = "pipes";
    const CARRIES_VALUES: bool = false;
    const PASSES_DESCRIPTORS: bool = false;

    fn pool(workers: usize) -> PipePool {
        PipePool::new(workers)
    }

    fn default_pool() -> PipePool {
        PipePool::new(2)
    }
}

/// Runs tasks in child processes.
pub(crate) struct PipePool {
    executor: Arc<dyn Executor>,
}

impl PipePool {
    pub(crate) fn new(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                places: (0..workers).map(|_| Place::default()).collect(),
                ..State::default()
            }),
            changed: Condvar::new(),
            callbacks: Callbacks::new(),
            counts: ItemCounts::default(),
            tracer: Tracer::default(),
        });
        for place in 0..workers {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work(place));
        }
        Self {
            executor: Arc::new(Handle(shared)),
        }
    }
}

impl Pool for PipePool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl Drop for PipePool {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// Items that wait for a worker.
struct Work {
    chunk: EncodedChunk,
    completion: Arc<Completion>,
    /// How often its first item was tried and lost.
    losses: u32,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    callbacks: Callbacks,
    counts: ItemCounts,
    tracer: Tracer,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    places: Vec<Place>,
    /// How many children there were.
    children: u32,
    is_closed: bool,
    is_terminated: bool,
    bytes_sent: u64,
    bytes_received: u64,
    workers_lost: u64,
    workers_ended: BTreeMap<ExitReason, u64>,
}

impl State {
    /// How many items wait.
    fn queued(&self) -> u64 {
        let items = self.queue.iter().map(|work| work.chunk.count() as u64);
        items.sum()
    }
}

/// What one thread of the pool is at.
#[derive(Default)]
struct Place {
    is_over: bool,
    child: Option<Process>,
    /// The chunk that its child has.
    running: Option<Running>,
    items: u64,
}

struct Process {
    info: WorkerInfo,
    since: Instant,
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
}

struct Running {
    call: CallId,
    number: u64,
    function: &'static str,
    next: usize,
    since: Instant,
}

/// What a thread has of its child for itself.
struct Line {
    output: ChildStdout,
    /// Contents that the child has.
    sent: BTreeSet<ContentId>,
    /// Contents that have come from it.
    received: BTreeMap<ContentId, BroadcastContent>,
    info: WorkerInfo,
    numbers: u64,
}

/// Why a child is of no use any more.
enum End {
    /// It is gone, or writes rubbish.
    Gone,
    /// It was killed at an item's deadline.
    Deadline,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and notifies everyone that waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Ends when the pool is closed and all is done.
    fn work(&self, place: usize) {
        let mut line: Option<Line> = None;
        let mut generation = 0;
        while let Some(mut work) = self.next() {
            if work.completion.is_abandoned() {
                self.end(&work, &cancelled());
                continue;
            }
            let mut here = match line.take() {
                Some(line) => line,
                None => match self.start(place, generation) {
                    Ok(line) => line,
                    Err(_) if self.lock().is_terminated => {
                        self.end(&work, &cancelled());
                        continue;
                    }
                    Err(error) => {
                        let message = format!("no child can be started: {error}");
                        self.end(&work, &TaskError::other(TaskErrorKind::Launch, message));
                        continue;
                    }
                },
            };
            match self.run(place, &mut here, &work) {
                Ok(()) => line = Some(here),
                Err(end) => {
                    generation += 1;
                    let exit = self.on_exit(place, &here, &end);
                    self.salvage(&mut work, &here, &end, exit);
                }
            }
            self.change(|state| state.places[place].running = None);
        }
        if let Some(line) = line {
            self.on_exit(place, &line, &End::Gone);
        }
        self.change(|state| state.places[place].is_over = true);
    }

    /// The next chunk; none: the pool has come to its end.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                return Some(work);
            }
            // A chunk that runs may come back in part.
            let runs = state.places.iter().any(|place| place.running.is_some());
            if state.is_closed && !runs {
                return None;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn start(&self, place: usize, generation: u32) -> io::Result<Line> {
        let mut state = self.lock();
        if state.is_terminated {
            return Err(io::Error::other("the pool was terminated"));
        }
        let mut child = Command::new(std::env::current_exe()?)
            .env(AGENT, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.expect("they were asked for");
        state.children += 1;
        let info = WorkerInfo::new(state.children, generation, child.id()).with_machine("pipes");
        self.tracer.worker_up(&info, place);
        state.places[place].child = Some(Process {
            info: info.clone(),
            since: Instant::now(),
            child,
            input: Arc::new(Mutex::new(input)),
        });
        Ok(Line {
            output,
            sent: BTreeSet::new(),
            received: BTreeMap::new(),
            info,
            numbers: 0,
        })
    }

    /// Has the child run a chunk.
    fn run(&self, place: usize, line: &mut Line, work: &Work) -> Result<(), End> {
        line.numbers += 1;
        let number = line.numbers;
        let indices = indices_of(&work.chunk);
        let input = self.change(|state| {
            let is_terminated = state.is_terminated;
            let place = &mut state.places[place];
            place.running = Some(Running {
                call: work.completion.call(),
                number,
                function: work
                    .chunk
                    .function()
                    .map_or("?", |function| function.name()),
                next: indices.start,
                since: Instant::now(),
            });
            let child = place.child.as_ref().filter(|_| !is_terminated);
            child.map(|child| child.input.clone())
        });
        let input = input.ok_or(End::Gone)?;
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        for content in work.chunk.contents() {
            if line.sent.insert(content.id()) {
                let sent = write_frame(&mut *input, CONTENT, 0, content.bytes());
                sent.map_err(|_| End::Gone)?;
                self.lock().bytes_sent += content.bytes().len() as u64;
            }
        }
        let bytes = work.chunk.to_bytes();
        write_frame(&mut *input, RUN, number, &bytes).map_err(|_| End::Gone)?;
        drop(input);
        self.lock().bytes_sent += bytes.len() as u64;
        self.take_outcomes(place, line, work)
    }

    fn take_outcomes(&self, place: usize, line: &mut Line, work: &Work) -> Result<(), End> {
        let timeout = work.chunk.options().timeout;
        let mut next = work.chunk.first_index();
        let end = indices_of(&work.chunk).end;
        let mut has_begun = false;
        loop {
            // From the outcome of one item to that of the next.
            if let Some(timeout) = timeout.filter(|_| has_begun && next < end)
                && !has_something_within(&line.output, timeout)
            {
                return Err(End::Deadline);
            }
            let frame = read_frame(&mut line.output).map_err(|_| End::Gone)?;
            match frame.kind {
                CONTENT => {
                    let content = BroadcastContent::new(&frame.bytes).map_err(|_| End::Gone)?;
                    line.received.insert(content.id(), content);
                }
                OUTCOME => {
                    let outcome = Outcome::from_bytes(&frame.bytes).map_err(|_| End::Gone)?;
                    if frame.number != next as u64 || next == end {
                        return Err(End::Gone);
                    }
                    let losses = if next == work.chunk.first_index() {
                        work.losses
                    } else {
                        0
                    };
                    let mut outcome = outcome.with_worker(&line.info).with_losses(losses);
                    for id in work.completion.missing(&outcome) {
                        if let Some(content) = line.received.get(&id) {
                            outcome.provide(content);
                        }
                    }
                    next += 1;
                    let mut state = self.lock();
                    state.bytes_received += frame.bytes.len() as u64;
                    let place = &mut state.places[place];
                    place.items += 1;
                    if let Some(running) = &mut place.running {
                        running.next = next;
                        running.since = Instant::now();
                    }
                    drop(state);
                    let first = work.completion.complete(next - 1, outcome);
                    first.expect("each item is sent once");
                }
                BEGUN => has_begun = true,
                DONE if frame.number == line.numbers && next == end => return Ok(()),
                _ => return Err(End::Gone),
            }
        }
    }

    /// Sees to it that the child is gone, and says how.
    fn on_exit(&self, place: usize, line: &Line, end: &End) -> Option<ExitStatus> {
        let mut state = self.lock();
        let process = state.places[place].child.take()?;
        let is_planned = state.is_closed && !state.is_terminated;
        drop(state);
        let Process {
            mut child, input, ..
        } = process;
        drop(input);
        if !is_planned {
            let _ = child.kill();
        }
        let status = child.wait().ok()?;
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
        };
        let reason = match end {
            End::Deadline => ExitReason::Deadline,
            End::Gone if is_planned => ExitReason::Closed,
            End::Gone => ExitReason::Crashed,
        };
        self.change(|state| {
            *state.workers_ended.entry(reason).or_default() += 1;
            state.workers_lost += u64::from(!is_planned);
            self.tracer.worker_ended(&line.info, reason);
        });
        Some(exit)
    }

    /// The child is dead: the item that it was at is lost, or tried again, and what is behind goes
    /// to another one.
    fn salvage(&self, work: &mut Work, line: &Line, end: &End, exit: Option<ExitStatus>) {
        let own = indices_of(&work.chunk);
        let pending = work.completion.pending();
        let Some(first) = pending.iter().find(|it| it.end > own.start) else {
            return;
        };
        let first = first.start.max(own.start);
        if first >= own.end {
            return;
        }
        let is_over = self.lock().is_terminated || work.completion.is_abandoned();
        let mut rest = first..own.end;
        if is_over {
            return self.end_some(work, rest, &cancelled(), work.losses);
        }
        work.losses += 1;
        if work.losses > work.chunk.options().retries {
            let error = match end {
                End::Deadline => {
                    TaskError::other(TaskErrorKind::TimedOut, "the item was at its deadline")
                }
                End::Gone => {
                    let exit = exit.unwrap_or(ExitStatus::Unknown);
                    let message = format!("the child {exit} while it ran the task");
                    TaskError::other(TaskErrorKind::WorkerLost, message).with_exit(exit)
                }
            };
            let error = error.with_worker(line.info.clone());
            self.end_some(work, first..first + 1, &error, work.losses);
            rest.start += 1;
            work.losses = 0;
        }
        if !rest.is_empty() {
            let work = Work {
                chunk: work.chunk.part(rest),
                completion: work.completion.clone(),
                losses: work.losses,
            };
            self.change(|state| state.queue.push_front(work));
        }
    }

    /// All items fail.
    fn end(&self, work: &Work, error: &TaskError) {
        self.end_some(work, indices_of(&work.chunk), error, 0);
    }

    fn end_some(&self, work: &Work, items: Range<usize>, error: &TaskError, losses: u32) {
        let outcome = |_| Outcome::from(error.clone()).with_losses(losses);
        let outcomes = items.clone().map(outcome).collect();
        let first = work.completion.complete_from(items.start, outcomes);
        first.expect("they had none");
    }

    fn give_up(&self, is_given_up: impl Fn(&Work) -> bool) {
        let given_up = self.change(|state| {
            let all = state.queue.drain(..);
            let (given_up, kept): (Vec<Work>, Vec<Work>) = all.partition(is_given_up);
            state.queue = kept.into();
            given_up
        });
        for work in given_up {
            self.end(&work, &cancelled());
        }
    }
}

fn indices_of(chunk: &EncodedChunk) -> Range<usize> {
    chunk.first_index()..chunk.first_index() + chunk.count()
}

fn cancelled() -> TaskError {
    TaskError::other(TaskErrorKind::Cancelled, "the task was cancelled")
}

/// Whether something comes, be it the end, in this time.
fn has_something_within(pipe: impl AsFd, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::time::Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) => return ready > 0,
            // Reading says it better.
            Err(_) => return true,
        }
    }
}

struct Handle(Arc<Shared>);

impl Executor for Handle {
    fn submit(&self, mut chunk: Chunk) {
        let shared = &self.0;
        let mut state = shared.lock();
        chunk.trace(&shared.tracer);
        chunk.count_in(&shared.counts);
        if state.is_closed {
            drop(state);
            let error = TaskError::other(TaskErrorKind::Closed, "the pool is closed");
            return chunk.finish(&error);
        }
        let (chunk, completion) = chunk.into_parts();
        state.queue.push_back(Work {
            chunk,
            completion: Arc::new(completion),
            losses: 0,
        });
        drop(state);
        shared.changed.notify_all();
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        self.0.give_up(|work| work.completion.call() == call);
        let mut state = self.0.lock();
        let mut flags = Vec::new();
        for place in &mut state.places {
            let running = place.running.as_ref().filter(|it| it.call == call);
            if let (Some(running), Some(process)) = (running, &mut place.child) {
                if how == Cancel::Kill {
                    let _ = process.child.kill();
                }
                flags.push((process.input.clone(), running.number));
            }
        }
        drop(state);
        for (input, number) in &flags {
            let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = write_frame(&mut *input, CANCEL, *number, &[]);
        }
        !flags.is_empty()
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.callbacks.run(job);
    }

    fn processes(&self) -> usize {
        self.0.lock().places.len()
    }

    fn chunking(&self) -> Chunking {
        let mut chunking = Chunking::default();
        chunking.target = Duration::from_millis(5);
        chunking
    }

    fn close(&self) {
        self.0.change(|state| state.is_closed = true);
    }

    fn terminate(&self) {
        self.0.change(|state| {
            (state.is_closed, state.is_terminated) = (true, true);
            for place in &mut state.places {
                if let Some(process) = &mut place.child {
                    let _ = process.child.kill();
                }
            }
        });
        self.0.give_up(|_| true);
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        let shared = &self.0;
        if shared.callbacks.is_current_thread() {
            return Err(JoinError::from_inside());
        }
        let mut state = shared.lock();
        if !state.is_closed {
            return Err(JoinError::not_closed());
        }
        while !state.places.iter().all(|place| place.is_over) {
            state = match deadline {
                None => {
                    let woken = shared.changed.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let woken = shared.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(state);
        Ok(shared.callbacks.wait_until_idle(deadline))
    }

    fn dump(&self) -> Dump {
        let state = self.0.lock();
        let mut dump = Dump::default();
        dump.queued = state.queued();
        for place in &state.places {
            let info = place.child.as_ref().map(|it| it.info.clone());
            let what = match (&info, &place.running) {
                (None, _) => WorkerState::Down,
                (_, None) => WorkerState::Idle,
                (_, Some(_)) => WorkerState::Running,
            };
            let mut worker = WorkerDump::new(info, what);
            worker.task = place.running.as_ref().map(|running| {
                let mut task = RunningTask::new(running.function, running.next);
                task.running_for = Some(running.since.elapsed());
                task
            });
            dump.workers.push(worker);
        }
        dump
    }

    fn tracer(&self) -> io::Result<&Tracer> {
        Ok(&self.0.tracer)
    }

    fn stats(&self) -> Stats {
        let state = self.0.lock();
        let mut stats = self.0.counts.stats(state.queued());
        stats.bytes_sent = state.bytes_sent;
        stats.bytes_received = state.bytes_received;
        stats.workers_started = state.children.into();
        stats.workers_lost = state.workers_lost;
        stats.workers_ended = state.workers_ended.clone();
        for place in &state.places {
            if let Some(process) = &place.child {
                let mut worker = WorkerStats::new(process.info.clone());
                worker.up = process.since.elapsed();
                worker.items = place.items;
                stats.workers.push(worker);
            }
        }
        stats
    }
}
