//! The thread that gives to the user's handlers what workers have printed.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

#[cfg(feature = "tracing")]
use crate::observe::events::{Audience, LetGo, OpenSpan, Origin, Said, WorkerSpans};
use crate::observe::output::{LineHandler, OutputLine, OutputStream};
use crate::panic::catch::catch_and_discard;
#[cfg(feature = "tracing")]
use crate::process::worker_info::WorkerInfo;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{self, Event, Standard};
use crate::task::end_watch::EndWatch;

/// This many bytes of news may wait for the handlers.
const MAX_BYTES: usize = 4 << 20;
/// What one of the news costs besides its bytes, about.
const NEWS_BYTES: usize = 128;

/// Something for the handlers.
pub(super) enum OutputEvent {
    /// A line, to this handler.
    Line(Arc<LineHandler>, OutputLine),
    /// Bytes, to the program's own output.
    Pass(OutputStream, Vec<u8>),
    /// A worker's event, which has taken this many bytes, to this subscriber; and the call that it
    /// comes from, with the index of its item there.
    #[cfg(feature = "tracing")]
    Event(
        Audience,
        WorkerInfo,
        Box<Said>,
        usize,
        Option<(Arc<Origin>, usize)>,
        Arc<Mutex<WorkerSpans>>,
    ),
    /// That a worker has ended, and with it its spans.
    #[cfg(feature = "tracing")]
    Ended(Arc<Mutex<WorkerSpans>>),
    /// That this many events of a worker were dropped.
    #[cfg(feature = "tracing")]
    Dropped(Audience, WorkerInfo, u64),
    /// That this span is not needed any more: by dropping it.
    #[cfg(feature = "tracing")]
    Span(OpenSpan),
}

impl OutputEvent {
    fn cost(&self) -> usize {
        NEWS_BYTES
            + match self {
                Self::Line(_, line) => line.bytes.capacity(),
                Self::Pass(_, bytes) => bytes.capacity(),
                // Each text is one of a memory of its own.
                #[cfg(feature = "tracing")]
                Self::Event(_, _, _, size, ..) => 4 * size,
                #[cfg(feature = "tracing")]
                Self::Dropped(..) | Self::Span(_) | Self::Ended(_) => 0,
            }
    }

    fn tell(self) {
        match self {
            Self::Line(handler, line) => handler(&line),
            Self::Pass(OutputStream::Stdout, bytes) => {
                sys::write_past_locks(Standard::Output, &bytes)
            }
            Self::Pass(OutputStream::Stderr, bytes) => {
                sys::write_past_locks(Standard::Error, &bytes)
            }
            #[cfg(feature = "tracing")]
            Self::Event(audience, worker, said, _, origin, spans) => {
                let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                let origin = origin.as_ref().map(|(origin, index)| (&**origin, *index));
                audience.tell(&worker, *said, origin, &mut spans);
            }
            #[cfg(feature = "tracing")]
            Self::Ended(spans) => {
                let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                Audience::end_spans(&mut spans);
            }
            #[cfg(feature = "tracing")]
            Self::Dropped(audience, worker, count) => audience.tell_dropped(&worker, count),
            #[cfg(feature = "tracing")]
            Self::Span(span) => drop(span),
        }
    }
}

/// What is to be delivered, in order.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Set when there is room again.
    room: Arc<Event>,
    /// Woken when all is delivered.
    watch: Arc<EndWatch>,
}

#[derive(Default)]
struct State {
    news: VecDeque<OutputEvent>,
    /// What all of them cost.
    bytes: usize,
    /// Something is being delivered.
    is_telling: bool,
    /// The thread ends when there is nothing to deliver.
    is_finished: bool,
    /// Somebody waits for room.
    wants_room: bool,
    thread: Option<ThreadId>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something. `false`: there is no room for it, and it is lost.
    pub(super) fn push(&self, news: OutputEvent) -> bool {
        let mut state = self.lock();
        if state.bytes >= MAX_BYTES {
            return false;
        }
        self.add(&mut state, news);
        true
    }

    /// Adds something whether there is room or not.
    pub(super) fn push_anyway(&self, news: OutputEvent) {
        self.add(&mut self.lock(), news);
    }

    fn add(&self, state: &mut State, news: OutputEvent) {
        state.bytes += news.cost();
        state.news.push_back(news);
        if !state.is_telling {
            self.changed.notify_all();
        }
    }

    /// Whether there is no room; if so, the event is set when there is.
    pub(super) fn is_full(&self) -> bool {
        let mut state = self.lock();
        state.wants_room = state.bytes >= MAX_BYTES;
        state.wants_room
    }

    fn work(&self) {
        let mut state = self.lock();
        state.thread = Some(thread::current().id());
        let mut has_told = false;
        loop {
            if let Some(news) = state.news.pop_front() {
                state.bytes -= news.cost();
                state.is_telling = true;
                if state.wants_room && state.bytes < MAX_BYTES / 2 {
                    state.wants_room = false;
                    self.room.set();
                }
                drop(state);
                catch_and_discard(|| news.tell());
                state = self.lock();
                state.is_telling = false;
                has_told = true;
            } else if std::mem::take(&mut has_told) && self.watch.has_any() {
                drop(state);
                self.watch.wake();
                state = self.lock();
            } else {
                self.changed.notify_all();
                if state.is_finished {
                    return;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(feature = "tracing")]
impl LetGo for Queue {
    /// Whether there is room or not: a span is more than what it takes here, and will be less.
    fn let_go(&self, span: OpenSpan) {
        let mut state = self.lock();
        if state.is_finished {
            // The pool is no more, and the caller has no lock of it.
            drop(state);
            catch_and_discard(|| drop(span));
        } else {
            self.add(&mut state, OutputEvent::Span(span));
        }
    }
}

/// The thread.
pub(super) struct HandlerThread {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl HandlerThread {
    /// Starts it. It sets `room` when there is room that somebody has asked for.
    pub(super) fn start(room: Arc<Event>, watch: Arc<EndWatch>) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            room,
            watch,
        });
        let thread = thread::Builder::new()
            .name("procpool-output".into())
            .spawn({
                let queue = queue.clone();
                move || queue.work()
            })
            .map_err(sys::failed_in(sys::THREAD_CALL))?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Waits until everything is delivered. `false`: it was not by the deadline.
    pub(super) fn wait_until_told(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.queue.lock();
        while state.is_telling || !state.news.is_empty() {
            let changed = &self.queue.changed;
            state = match deadline {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(sys::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    pub(super) fn is_current_thread(&self) -> bool {
        self.queue.lock().thread == Some(thread::current().id())
    }

    /// Lets the thread end when everything is delivered, and waits for that, unless this is the
    /// thread.
    pub(super) fn finish(&self) {
        self.queue.lock().is_finished = true;
        self.queue.changed.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && !self.is_current_thread()
        {
            let _ = thread.join();
        }
    }
}
