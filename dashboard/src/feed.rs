//! What the pool does, for the pages that are open: nothing while none is.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use procpool_core::{
    ExitReason, Observe, Observer, PoolEvent, Stats, WeakPool, WorkerDump, WorkerInfo, WorkerState,
    WorkerStats,
};
use tokio::sync::mpsc;

use crate::history::Rates;
use crate::lanes::Lanes;
use crate::message::{self, At, Call, Failure, Hello, Mark, Span, State, Worker};

/// How often pages are told.
const TICK: Duration = Duration::from_millis(250);
/// Chunks that are shorter are not seen in a picture of a minute: a worker was busy, and that is
/// all.
const SHORTEST: Duration = Duration::from_millis(5);
/// How many pages may be open, and how many messages may wait for one: then it is closed, and its
/// browser asks again.
const MOST_PAGES: usize = 16;
const MOST_MESSAGES: usize = 64;
/// How many calls, failures and spans there are in a message.
const MOST_CALLS: usize = 50;
const MOST_FAILURES: usize = 50;
const MOST_SPANS: usize = 2000;

pub(crate) struct Feed {
    pool: WeakPool,
    hello: Hello,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    open: Vec<mpsc::Sender<Bytes>>,
    /// What looks at the pool for them.
    watcher: Option<Watcher>,
    has_ended: bool,
}

struct Watcher {
    /// Dropped, it stops.
    _stop: std_mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Feed {
    pub(crate) fn new(pool: WeakPool, hello: Hello) -> Self {
        Self {
            pool,
            hello,
            pages: Mutex::default(),
        }
    }

    pub(crate) fn pool(&self) -> &WeakPool {
        &self.pool
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one more page is told from now on.
    pub(crate) fn join(self: &Arc<Self>) -> io::Result<mpsc::Receiver<Bytes>> {
        let mut pages = self.pages();
        pages.open.retain(|page| !page.is_closed());
        if pages.has_ended || pages.open.len() >= MOST_PAGES {
            return Err(io::Error::other("too many pages are open"));
        }
        let (page, messages) = mpsc::channel(MOST_MESSAGES);
        // There is room in what is new.
        let _ = page.try_send(message::alone("hello", &self.hello));
        if self.pool.is_gone() {
            let _ = page.try_send(message::alone("end", &()));
            return Ok(messages);
        }
        pages.open.push(page);
        if pages.watcher.is_none() {
            let shortest = SHORTEST;
            let observer = self.pool.observe(Observe::Chunks { shortest })?;
            let (stop, stopped) = std_mpsc::channel();
            let feed = self.clone();
            let thread = std::thread::Builder::new()
                .name("procpool-watch".into())
                .spawn(move || View::new(feed, observer).keep(&stopped))?;
            pages.watcher = Some(Watcher {
                _stop: stop,
                thread,
            });
        }
        Ok(messages)
    }

    /// Tells each page. `false`: there is none any more, and nobody looks at the pool from now on.
    fn tell(&self, message: &Bytes, is_last: bool) -> bool {
        let mut pages = self.pages();
        pages
            .open
            .retain(|page| page.try_send(message.clone()).is_ok());
        if is_last {
            pages.open.clear();
        }
        if pages.open.is_empty() {
            pages.watcher = None;
        }
        pages.watcher.is_some()
    }

    /// No page is told anything any more.
    pub(crate) fn end(&self) {
        let mut pages = self.pages();
        pages.has_ended = true;
        pages.open.clear();
        let watcher = pages.watcher.take();
        drop(pages);
        if let Some(Watcher {
            _stop: stop,
            thread,
        }) = watcher
        {
            drop(stop);
            // If it has panicked it has said so.
            let _ = thread.join();
        }
    }
}

/// How the pool looks, from the first page on until there is none.
struct View {
    feed: Arc<Feed>,
    observer: Observer,
    start: Instant,
    lanes: Lanes,
    calls: Rates<u64>,
    busy: Rates<WorkerInfo>,
    cpu: Rates<WorkerInfo>,
    /// When each worker was looked at the last time, and how long it was busy then.
    last: HashMap<WorkerInfo, (f64, f64)>,
    /// What is sent in one go.
    text: String,
}

impl View {
    fn new(feed: Arc<Feed>, observer: Observer) -> Self {
        Self {
            feed,
            observer,
            start: Instant::now(),
            lanes: Lanes::default(),
            calls: Rates::default(),
            busy: Rates::default(),
            cpu: Rates::default(),
            last: HashMap::new(),
            text: String::new(),
        }
    }

    fn keep(mut self, stopped: &std_mpsc::Receiver<()>) {
        let mut wait = Duration::ZERO;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            wait = TICK;
            self.text.clear();
            self.tell_events();
            let stats = self.feed.pool.stats();
            let is_last = stats.is_none();
            match stats {
                Some(stats) => self.tell_state(&stats),
                None => message::event(&mut self.text, "end", &()),
            }
            let text = Bytes::copy_from_slice(self.text.as_bytes());
            if !self.feed.tell(&text, is_last) {
                break;
            }
        }
    }

    /// What has happened since the last time.
    fn tell_events(&mut self) {
        let mut spans = Vec::new();
        let mut failures = Vec::new();
        while let Some(event) = self.observer.try_recv() {
            match event {
                PoolEvent::WorkerUp {
                    worker,
                    position,
                    at,
                    ..
                } => {
                    self.lanes.place(&worker, position);
                    let text = worker.to_string();
                    self.mark(&worker, at, false, text);
                }
                PoolEvent::WorkerEnded {
                    worker, reason, at, ..
                } => {
                    let is_loss = is_loss(reason);
                    self.mark(&worker, at, is_loss, format!("{reason:?}"));
                }
                PoolEvent::CallRefused {
                    worker, call, at, ..
                } => self.mark(&worker, at, true, format!("refused: {call}")),
                PoolEvent::ChunkEnded {
                    worker,
                    call,
                    items,
                    took,
                    at,
                    ..
                } => spans.extend(self.lanes.get(&worker).map(|lane| Span {
                    lane,
                    call,
                    from: at.saturating_sub(took).as_secs_f64(),
                    to: at.as_secs_f64(),
                    items,
                })),
                PoolEvent::ItemEnded {
                    call,
                    index,
                    error: Some(error),
                    at,
                    ..
                } => {
                    // Of a storm, the last ones.
                    if failures.len() == MOST_FAILURES {
                        failures.remove(0);
                    }
                    failures.push(Failure::new(at.as_secs_f64(), call, index, &error));
                }
                _ => {}
            }
        }
        if spans.len() > MOST_SPANS {
            spans.drain(..spans.len() - MOST_SPANS);
        }
        if !spans.is_empty() {
            message::event(&mut self.text, "spans", &spans);
        }
        if !failures.is_empty() {
            message::event(&mut self.text, "failures", &failures);
        }
    }

    fn mark(&mut self, worker: &WorkerInfo, at: Duration, is_loss: bool, text: String) {
        if let Some(lane) = self.lanes.get(worker) {
            let mark = Mark {
                lane,
                at: at.as_secs_f64(),
                is_loss,
                text,
            };
            message::event(&mut self.text, "worker", &mark);
        }
    }

    fn tell_state(&mut self, stats: &Stats) {
        let at = self.start.elapsed().as_secs_f64();
        let activity = self.feed.pool.activity().unwrap_or_default();
        self.lanes.keep(stats.workers.iter().map(|it| &it.info));
        let mut workers: Vec<Worker> = (stats.workers.iter())
            .map(|worker| self.worker(at, worker, &activity))
            .collect();
        // As in the timeline. Machines answer in any order.
        workers.sort_by_key(|worker| worker.lane);
        let mut calls = self.feed.pool.calls();
        let of_calls: u64 = (calls.iter())
            .map(|call| call.submitted.saturating_sub(call.ended))
            .sum();
        let more_calls = calls.len().saturating_sub(MOST_CALLS);
        calls.truncate(MOST_CALLS);
        let calls = calls.into_iter().map(|call| Call {
            id: call.number.to_string(),
            rate: self.calls.note(call.number, at, call.ended as f64),
            name: call.name,
            age: call.age.as_secs_f64(),
            total: call.total,
            ended: call.ended,
            failed: call.failed,
        });
        let calls = calls.collect();
        let lanes = workers.iter().map(|it| it.lane + 1).max().unwrap_or(0);
        let processes = self.feed.pool.processes();
        let state = State {
            at,
            lanes: lanes.max(processes),
            processes,
            counts: stats.into(),
            workers,
            calls,
            more_calls,
            single_tasks: (stats.queued + stats.running).saturating_sub(of_calls),
            missed: self.observer.dropped(),
        };
        self.calls.forget_before(at);
        self.busy.forget_before(at);
        self.cpu.forget_before(at);
        self.last.retain(|_, (then, _)| *then >= at);
        message::event(&mut self.text, "state", &state);
    }

    fn worker(&mut self, at: f64, worker: &WorkerStats, activity: &[WorkerDump]) -> Worker {
        let key = || worker.info.clone();
        let busy = worker.busy.as_secs_f64();
        let share = |rate: f64| rate.clamp(0.0, 1.0);
        let before = self.last.insert(key(), (at, busy));
        let load = before.map(|(then, was)| share((busy - was) / (at - then)));
        let cpu = worker.cpu.map(|cpu| cpu.as_secs_f64());
        let does = (activity.iter()).find(|it| it.info.as_ref() == Some(&worker.info));
        let task = does.and_then(|it| it.task.as_ref());
        Worker {
            key: format!("{}@{}", worker.pid(), worker.info.machine().unwrap_or("")),
            name: worker.info.name(),
            pid: worker.pid(),
            machine: worker.info.machine().map(str::to_owned),
            lane: self.lanes.give(&worker.info),
            state: does.map_or("", |it| in_words(it.state)),
            at: task.map(|task| At {
                call: task.function.clone(),
                index: task.index,
                since: (task.running_for.or(task.chunk_running_for))
                    .map(|time| at - time.as_secs_f64()),
            }),
            items: worker.items,
            queued: worker.queued,
            up: worker.up.as_secs_f64(),
            busy: self.busy.note(key(), at, busy).map(share),
            load,
            cpu: cpu.and_then(|cpu| self.cpu.note(key(), at, cpu)),
            rss: worker.rss,
        }
    }
}

/// Whether nobody had wanted it to end.
fn is_loss(reason: ExitReason) -> bool {
    !reason.is_planned() && reason != ExitReason::Terminated
}

fn in_words(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Idle => "idle",
        WorkerState::Running => "running",
        WorkerState::Draining => "leaving",
        WorkerState::Terminating => "dying",
        _ => "starting",
    }
}
