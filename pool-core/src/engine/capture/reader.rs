//! The thread that empties the workers' pipes.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::handler_thread::{HandlerThread, OutputEvent, Queue};
use super::lines::Lines;
use super::worker_pipes::{Destination, Pipes, READ_BYTES, WorkerPipes, from_token};
use crate::backend::config::ValidatedConfig;
use crate::backend::launcher::Outlets;
use crate::engine::launch::Due;
#[cfg(feature = "tracing")]
use crate::observe::events::{Audience, Frames, Origin};
use crate::observe::output::{Kind, LineHandler, Output, OutputLine, OutputStream};
use crate::process::worker_info::WorkerInfo;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::fd::OwnedFd;
use crate::sys::{self, Event, Poller};
use crate::task::end_watch::EndWatch;
#[cfg(feature = "tracing")]
use crate::worker::function::FunctionId;

/// The token of the reader's alarm.
const ALARM: u64 = u64::MAX;

/// The most pipes that a worker has: its output, its error output, its events.
const MAX_PIPES: usize = 3;

/// How often the reader looks for output where nothing can wake it for that.
const BLIND_NAP: Duration = Duration::from_millis(10);

/// How many bytes of events a worker can be ahead of the reader: of the order of a thousand events.
#[cfg(feature = "tracing")]
pub(super) const EVENT_PIPE_BYTES: usize = 256 * 1024;

/// What becomes of a pool's workers' output.
pub(in super::super) struct Capture {
    stdout: Output,
    stderr: Output,
    /// Where discarded output goes. It is opened once: there is none under a root that the program
    /// changes to.
    null: Option<Arc<OwnedFd>>,
    /// The subscriber that the workers' events go to.
    #[cfg(feature = "tracing")]
    audience: Option<Audience>,
    #[cfg(feature = "tracing")]
    has_spans: bool,
    /// In pools that capture something.
    reader: Option<Reader>,
}

struct Reader {
    shared: Arc<CaptureShared>,
    handler: HandlerThread,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the reader's thread shares with the others.
pub(super) struct CaptureShared {
    pub(super) poller: Poller,
    /// Wakes the reader: there is room, or it is the end.
    alarm: Arc<Event>,
    /// The workers' pipes, by the workers' numbers.
    pipes: Mutex<HashMap<u32, Arc<Pipes>>>,
    pub(super) queue: Arc<Queue>,
    lines_dropped: AtomicU64,
    #[cfg(feature = "tracing")]
    pub(super) events_dropped: AtomicU64,
    is_finished: AtomicBool,
}

impl Capture {
    pub(in super::super) fn new(
        config: &ValidatedConfig,
        end_watch: &Arc<EndWatch>,
    ) -> io::Result<Self> {
        let (stdout, stderr) = (config.stdout.clone(), config.stderr.clone());
        let reads = stdout.is_captured() || stderr.is_captured() || config.forward_events;
        let reader = if reads {
            Some(Reader::start(end_watch)?)
        } else {
            None
        };
        let discards = stdout.is_discarded() || stderr.is_discarded();
        let null = if discards {
            Some(Arc::new(sys::null_output()?))
        } else {
            None
        };
        Ok(Self {
            stdout,
            stderr,
            null,
            #[cfg(feature = "tracing")]
            audience: config.forward_events.then(Audience::current),
            #[cfg(feature = "tracing")]
            has_spans: config.forward_spans,
            reader,
        })
    }

    /// The span of a call that this thread makes, or else the one that it is in, if events are
    /// forwarded.
    #[cfg(feature = "tracing")]
    pub(in super::super) fn origin(
        &self,
        function: FunctionId,
        name: Option<&str>,
    ) -> Option<Arc<Origin>> {
        let audience = self.audience.as_ref()?;
        let keeper = self.reader.as_ref()?.shared.queue.clone();
        if self.has_spans {
            let name = name.unwrap_or_else(|| function.name());
            if let Some(span) = audience.open_call(name, function.name()) {
                return Some(Arc::new(Origin::new(span, Some(name), keeper)));
            }
        }
        let span = audience.current_span()?;
        Some(Arc::new(Origin::new(span, None, keeper)))
    }

    /// Makes what a worker is to write to, and what that is read from, if it is read at all.
    pub(in super::super) fn connect(
        &self,
        due: &Due,
    ) -> io::Result<(Outlets, Option<WorkerPipes>)> {
        let mut pipes = Vec::new();
        let mut outlet = |stream, output: &Output| match &output.0 {
            Kind::Inherit => Ok(None),
            Kind::Discard => Ok(self.null.clone()),
            Kind::Tee => {
                let (ours, theirs) = sys::output_pipe()?;
                pipes.push((ours, Destination::Pass(stream)));
                Ok(Some(Arc::new(theirs)))
            }
            Kind::Lines(handler) => {
                let (ours, theirs) = sys::output_pipe()?;
                let lines = Destination::Lines(stream, handler.clone(), Lines::default());
                pipes.push((ours, lines));
                io::Result::Ok(Some(Arc::new(theirs)))
            }
        };
        #[allow(unused_mut, reason = "without events there is nothing to add")]
        let mut outlets = Outlets {
            stdout: outlet(OutputStream::Stdout, &self.stdout)?,
            stderr: outlet(OutputStream::Stderr, &self.stderr)?,
            ..Outlets::default()
        };
        #[cfg(feature = "tracing")]
        if let Some(audience) = &self.audience {
            let (ours, theirs) = sys::output_pipe()?;
            // A thread that has something to deliver must not wait.
            sys::never_block(&theirs)?;
            sys::enlarge_pipe(&theirs, EVENT_PIPE_BYTES);
            pipes.push((
                ours,
                Destination::Events(audience.clone(), Frames::default(), Arc::default()),
            ));
            outlets.events = Some(Arc::new(theirs));
            outlets.max_level = Audience::max_level(self.has_spans);
        }
        let Some(reader) = &self.reader else {
            return Ok((outlets, None));
        };
        let info = WorkerInfo::new(due.number, due.generation, 0);
        let pipes = Arc::new(Pipes::new(info, pipes, reader.shared.clone()));
        reader.shared.lock().insert(due.number, pipes.clone());
        // Dropped, and so forgotten, if they cannot be watched.
        let pipes = WorkerPipes(pipes);
        pipes.0.watch()?;
        Ok((outlets, Some(pipes)))
    }

    /// How many lines were lost because a handler was too slow.
    pub(in super::super) fn lines_dropped(&self) -> u64 {
        let dropped = |reader: &Reader| reader.shared.lines_dropped.load(Ordering::Relaxed);
        self.reader.as_ref().map_or(0, dropped)
    }

    /// How many events were dropped.
    pub(in super::super) fn events_dropped(&self) -> u64 {
        #[cfg(feature = "tracing")]
        if let Some(reader) = &self.reader {
            return reader.shared.events_dropped.load(Ordering::Relaxed);
        }
        0
    }

    /// Whether this is the thread that the handlers run on.
    pub(in super::super) fn is_telling_here(&self) -> bool {
        let handler = self.reader.as_ref().map(|reader| &reader.handler);
        handler.is_some_and(HandlerThread::is_current_thread)
    }

    /// Waits until the handlers have seen everything that was read. `false`: they had not by the
    /// deadline.
    pub(in super::super) fn wait_until_told(&self, deadline: Option<Instant>) -> bool {
        let handler = self.reader.as_ref().map(|reader| &reader.handler);
        handler.is_none_or(|handler| handler.wait_until_told(deadline))
    }

    /// Ends the threads, when the handlers have seen everything. The workers are gone by now.
    pub(in super::super) fn finish(&self) {
        if let Some(reader) = &self.reader {
            reader.finish();
        }
    }
}

impl Reader {
    fn start(watch: &Arc<EndWatch>) -> io::Result<Self> {
        let alarm = Arc::new(Event::new()?);
        let poller = Poller::new()?;
        poller.add(&*alarm, ALARM)?;
        let handler = HandlerThread::start(alarm.clone(), watch.clone())?;
        let shared = Arc::new(CaptureShared {
            poller,
            alarm,
            pipes: Mutex::new(HashMap::new()),
            queue: handler.queue().clone(),
            lines_dropped: AtomicU64::new(0),
            #[cfg(feature = "tracing")]
            events_dropped: AtomicU64::new(0),
            is_finished: AtomicBool::new(false),
        });
        let thread = thread::Builder::new()
            .name("procpool-reader".into())
            .spawn({
                let shared = shared.clone();
                move || shared.read()
            });
        match thread {
            Ok(thread) => Ok(Self {
                shared,
                handler,
                thread: Mutex::new(Some(thread)),
            }),
            Err(error) => {
                handler.finish();
                Err(sys::failed_in(sys::THREAD_CALL)(error))
            }
        }
    }
}

impl Reader {
    fn finish(&self) {
        self.shared.is_finished.store(true, Ordering::SeqCst);
        self.shared.alarm.set();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It runs nothing of the user's.
            let _ = thread.join();
        }
        drop(thread);
        self.handler.finish();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Of a pool that could not be built: of others it is done.
        self.finish();
    }
}

impl CaptureShared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Pipes>>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's pipes are closed.
    pub(super) fn forget(&self, number: u32) {
        self.lock().remove(&number);
    }

    /// Has a line delivered, or counts it.
    pub(super) fn tell_line(
        &self,
        handler: &Arc<LineHandler>,
        line: OutputLine,
        dropped: &mut u64,
    ) {
        if self.queue.push(OutputEvent::Line(handler.clone(), line)) {
            *dropped = 0;
        } else {
            *dropped += 1;
            self.lines_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has an event delivered, or counts it.
    #[cfg(feature = "tracing")]
    pub(super) fn tell_event(&self, event: OutputEvent, dropped: &mut u64) {
        if !self.queue.push(event) {
            *dropped = dropped.saturating_add(1);
            self.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) {
        let mut ready = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut again = None;
        while !self.is_finished.load(Ordering::SeqCst) {
            if self.poller.wait(&mut ready, again).is_err() {
                // A sandbox was put up in the meantime. The writer must not wait forever.
                sys::nap(BLIND_NAP);
                let all: Vec<_> = self.lock().values().cloned().collect();
                for pipes in all {
                    (0..MAX_PIPES).for_each(|index| pipes.read(index, &mut buffer));
                }
                continue;
            }
            if again.take().is_some() || ready.contains(&ALARM) {
                self.alarm.clear();
                let all: Vec<_> = self.lock().values().cloned().collect();
                let refused = all.iter().filter(|pipes| !pipes.resume()).count();
                again = (refused > 0).then_some(BLIND_NAP);
            }
            for &token in &ready {
                if token != ALARM {
                    let (number, index) = from_token(token);
                    let pipes = self.lock().get(&number).cloned();
                    if let Some(pipes) = pipes {
                        pipes.read(index, &mut buffer);
                    }
                }
            }
        }
    }
}
