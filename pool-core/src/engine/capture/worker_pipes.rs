//! What comes from one worker.

use std::sync::{Arc, PoisonError};

use super::handler_thread::OutputEvent;
use super::lines::Lines;
use super::reader::CaptureShared;
#[cfg(feature = "tracing")]
use super::reader::EVENT_PIPE_BYTES;
#[cfg(feature = "tracing")]
use super::span_index::Origins;
use super::tail::Tail;
#[cfg(feature = "tracing")]
use crate::observe::events::{Audience, Frames, Origin, WorkerSpans};
use crate::observe::output::{LineHandler, OutputLine, OutputStream};
use crate::process::worker_info::WorkerInfo;
use crate::shm::region::Region;
#[cfg(feature = "tracing")]
use crate::sync::atomic::Ordering;
use crate::sync::{Mutex, MutexGuard};
use crate::sys;
use crate::sys::Errno;
use crate::sys::fd::OwnedFd;

/// How much is read at once.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// The parent's ends of one worker's pipes. When it is dropped, they are emptied and closed.
pub(in super::super) struct WorkerPipes(pub(super) Arc<Pipes>);

/// See [`WorkerPipes`].
pub(super) struct Pipes {
    pub(super) number: u32,
    state: Mutex<State>,
    #[cfg(feature = "tracing")]
    origins: Arc<Origins>,
}

struct State {
    info: WorkerInfo,
    sources: Vec<Source>,
    /// Of standard error.
    tail: Tail,
    /// Once the worker is known.
    #[cfg(feature = "tracing")]
    region: Option<Arc<Region>>,
    /// Of its items.
    #[cfg(feature = "tracing")]
    origins: Arc<Origins>,
    shared: Arc<CaptureShared>,
}

/// One pipe.
struct Source {
    /// `None`: nothing more will come.
    pipe: Option<OwnedFd>,
    to: Destination,
    /// How many lines or events were lost since the last one that was not.
    dropped: u64,
    /// It is not watched until there is room for what it has.
    is_paused: bool,
}

/// What becomes of what comes out of a pipe.
pub(super) enum Destination {
    Pass(OutputStream),
    Lines(OutputStream, Arc<LineHandler>, Lines),
    #[cfg(feature = "tracing")]
    Events(Audience, Frames, Arc<Mutex<WorkerSpans>>),
}

impl Pipes {
    pub(super) fn new(
        info: WorkerInfo,
        pipes: Vec<(OwnedFd, Destination)>,
        shared: Arc<CaptureShared>,
    ) -> Self {
        let source = |(pipe, to)| Source {
            pipe: Some(pipe),
            to,
            dropped: 0,
            is_paused: false,
        };
        #[cfg(feature = "tracing")]
        let origins = Arc::<Origins>::default();
        Self {
            number: info.number(),
            #[cfg(feature = "tracing")]
            origins: origins.clone(),
            state: Mutex::new(State {
                info,
                sources: pipes.into_iter().map(source).collect(),
                tail: Tail::default(),
                #[cfg(feature = "tracing")]
                region: None,
                #[cfg(feature = "tracing")]
                origins,
                shared,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has them all watched.
    pub(super) fn watch(&self) -> std::io::Result<()> {
        let state = self.lock();
        for (index, source) in state.sources.iter().enumerate() {
            if let Some(pipe) = &source.pipe {
                state.shared.poller.add(pipe, token(self.number, index))?;
            }
        }
        Ok(())
    }

    /// Reads a piece of what one of them has.
    pub(super) fn read(&self, index: usize, buffer: &mut [u8]) {
        let state = &mut *self.lock();
        let Some(source) = state.sources.get_mut(index) else {
            return;
        };
        let Some(pipe) = &source.pipe else { return };
        if matches!(source.to, Destination::Pass(_)) && state.shared.queue.is_full() {
            source.is_paused = state.shared.poller.delete(pipe).is_ok();
            if source.is_paused {
                return;
            }
            // What goes on being heard has to be read.
        }
        match sys::read(pipe, &mut *buffer) {
            Ok(0) => state.close(index),
            Ok(count) => state.take(index, &buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => state.close(index),
        }
    }

    /// Reads the events that are there, no more than a pipe holds: others may go on writing.
    #[cfg(feature = "tracing")]
    fn read_events(&self) {
        let state = &mut *self.lock();
        let is_events = |source: &Source| matches!(source.to, Destination::Events(..));
        let Some(index) = state.sources.iter().position(is_events) else {
            return;
        };
        let mut buffer = [0; 4096];
        let mut left = EVENT_PIPE_BYTES;
        while left > 0
            && let Some(pipe) = &state.sources[index].pipe
        {
            match sys::read(pipe, &mut buffer) {
                Ok(0) => state.close(index),
                Ok(count) => {
                    state.take(index, &buffer[..count]);
                    if count < buffer.len() {
                        return;
                    }
                    left = left.saturating_sub(count);
                }
                Err(Errno::INTR) => {}
                // The reader sees to it, if it is an error.
                Err(_) => return,
            }
        }
    }

    /// There is room again. `false`: the system refuses to watch one of them for now.
    pub(super) fn resume(&self) -> bool {
        let state = &mut *self.lock();
        for (index, source) in state.sources.iter_mut().enumerate() {
            if let Some(pipe) = &source.pipe
                && source.is_paused
            {
                let watched = state.shared.poller.add(pipe, token(self.number, index));
                source.is_paused = watched.is_err();
            }
        }
        !state.sources.iter().any(|source| source.is_paused)
    }
}

impl State {
    /// Passes on what was read.
    fn take(&mut self, index: usize, bytes: &[u8]) {
        let Self {
            info,
            sources,
            shared,
            ..
        } = self;
        #[cfg(feature = "tracing")]
        let origins = &self.origins;
        let Source { to, dropped, .. } = &mut sources[index];
        if let Destination::Pass(OutputStream::Stderr)
        | Destination::Lines(OutputStream::Stderr, ..) = to
        {
            self.tail.feed(bytes);
        }
        match to {
            Destination::Pass(stream) => {
                // The reader has seen to it that there is room, or this is the last there is.
                shared
                    .queue
                    .push_anyway(OutputEvent::Pass(*stream, bytes.to_vec()));
            }
            Destination::Lines(stream, handler, lines) => {
                lines.feed(bytes, |bytes, is_cut| {
                    let line = OutputLine {
                        worker: info.clone(),
                        stream: *stream,
                        bytes,
                        is_cut,
                        dropped: *dropped,
                    };
                    shared.tell_line(handler, line, dropped);
                });
            }
            #[cfg(feature = "tracing")]
            Destination::Events(audience, frames, spans) => {
                frames.feed(bytes, |said, size| {
                    let origin = said.item().and_then(|item| origins.find(item));
                    let (to, said, spans) = (audience.clone(), Box::new(said), spans.clone());
                    let event = OutputEvent::Event(to, info.clone(), said, size, origin, spans);
                    shared.tell_event(event, dropped);
                });
                self.count_dropped(index, false);
            }
        }
    }

    /// Reports how many events were lost, if some were, there and here.
    #[cfg(feature = "tracing")]
    fn count_dropped(&mut self, index: usize, is_over: bool) {
        let Source { to, dropped, .. } = &mut self.sources[index];
        let Destination::Events(audience, ..) = to else {
            return;
        };
        if let Some(region) = &self.region {
            let there = &region.words().progress.events_dropped;
            // The worker counts, and may count wrong.
            let there = there.swap(0, Ordering::Relaxed);
            *dropped = dropped.saturating_add(there);
            self.shared
                .events_dropped
                .fetch_add(there, Ordering::Relaxed);
        }
        if *dropped > 0 {
            let news = OutputEvent::Dropped(audience.clone(), self.info.clone(), *dropped);
            if is_over {
                self.shared.queue.push_anyway(news);
                *dropped = 0;
            } else if self.shared.queue.push(news) {
                *dropped = 0;
            }
        }
    }

    /// Nothing more will come from there.
    fn close(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if let Some(pipe) = source.pipe.take() {
            if !source.is_paused {
                // It would go only when all copies of the descriptor are closed, and a
                // process that was forked from this one may have some.
                let _ = self.shared.poller.delete(&pipe);
            }
            match &mut source.to {
                Destination::Lines(stream, handler, lines) => {
                    if let Some(bytes) = lines.finish() {
                        let line = OutputLine {
                            worker: self.info.clone(),
                            stream: *stream,
                            bytes,
                            is_cut: false,
                            dropped: source.dropped,
                        };
                        self.shared.tell_line(handler, line, &mut source.dropped);
                    }
                }
                Destination::Pass(_) => {}
                #[cfg(feature = "tracing")]
                Destination::Events(_, _, spans) => {
                    let ended = OutputEvent::Ended(spans.clone());
                    self.shared.queue.push_anyway(ended);
                    self.count_dropped(index, true);
                }
            }
        }
    }

    /// Reads what a dead worker has left in a pipe. That is no more than a pipe holds; others may
    /// still write there, and have no end.
    fn drain(&mut self, index: usize) {
        let Some(pipe) = &self.sources[index].pipe else {
            return;
        };
        let mut left = sys::pipe_size(pipe).unwrap_or(READ_BYTES);
        let mut buffer = vec![0; READ_BYTES.min(left)];
        while left > 0
            && let Some(pipe) = &self.sources[index].pipe
        {
            let most = buffer.len().min(left);
            match sys::read(pipe, &mut buffer[..most]) {
                Ok(0) => break,
                Ok(count) => {
                    left -= count;
                    self.take(index, &buffer[..count]);
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.close(index);
    }
}

impl WorkerPipes {
    /// The worker is known now.
    pub(in super::super) fn introduce(&self, info: WorkerInfo, _region: Arc<Region>) {
        let mut state = self.0.lock();
        state.info = info;
        #[cfg(feature = "tracing")]
        {
            state.region = Some(_region);
        }
    }

    /// Takes in what the worker, which is dead, has left, and closes its pipes. To be called
    /// without the pool's lock: there may be much.
    pub(in super::super) fn finisher(&self) -> impl FnOnce() + use<> {
        let pipes = self.0.clone();
        move || finish(&pipes)
    }

    /// The worker is handed these items of that call, in which the first one has this index.
    #[cfg(feature = "tracing")]
    pub(in super::super) fn handed(
        &self,
        first: u64,
        last: u64,
        index: usize,
        origin: &Arc<Origin>,
    ) {
        self.0.origins.add(first, last, index, origin);
    }

    /// Takes in the worker's events of its first `through` items, for which it has finished
    /// them. To be called without the pool's lock, and before their origins are let go of.
    #[cfg(feature = "tracing")]
    pub(in super::super) fn event_flusher(&self, through: u64) -> impl FnOnce() + use<> {
        let pipes = self.0.clone();
        move || {
            pipes.read_events();
            pipes.origins.forget(through);
        }
    }

    /// The last lines that it has written to standard error, as far as they were read.
    pub(in super::super) fn stderr_tail(&self) -> Option<String> {
        self.0.lock().tail.text()
    }
}

impl Drop for WorkerPipes {
    fn drop(&mut self) {
        finish(&self.0);
    }
}

/// Takes in what a dead worker has left, and closes its pipes.
fn finish(pipes: &Pipes) {
    let state = &mut *pipes.lock();
    for index in 0..state.sources.len() {
        state.drain(index);
    }
    state.shared.forget(pipes.number);
}

/// Names a pipe in the readiness of a descriptor.
fn token(number: u32, index: usize) -> u64 {
    u64::from(number) << 8 | index as u64
}

/// The worker's number and the pipe's index.
pub(super) fn from_token(token: u64) -> (u32, usize) {
    ((token >> 8) as u32, (token & 0xFF) as usize)
}
