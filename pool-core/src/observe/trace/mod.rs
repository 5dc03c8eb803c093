//! Traces: what every worker did, as a file for Chrome, Perfetto and `cargo xtask timeline`.

mod event;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};

pub(crate) use self::event::Event;
use self::event::Writer;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys;
use crate::task::chunk::Piece;
use crate::task::executor::Executor;
use crate::worker::function::Entry;

/// So many events may wait to be written; those beyond are counted, and not kept.
const MAX_EVENTS: usize = 1 << 16;

/// A trace that is being written: what [`Pool::trace_to`](crate::Pool::trace_to) returns. It ends
/// when this is dropped.
#[must_use = "a trace ends when it is dropped"]
pub struct Trace {
    executor: Arc<dyn Executor>,
    tracer: Tracer,
    writer: Option<JoinHandle<io::Result<()>>>,
    fork_depth: usize,
}

impl Trace {
    pub(crate) fn start(executor: Arc<dyn Executor>, path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let tracer = Tracer::default();
        let queue = tracer.queue.clone();
        let writer = Writer::new(file, queue.start);
        // First, so that a pool that cannot be traced, or is traced already, has no thread for it.
        executor.trace(&tracer)?;
        let writer = thread::Builder::new()
            .name("procpool-trace".into())
            .spawn(move || sys::without_size_signal(|| queue.write(writer)));
        if writer.is_err() {
            executor.untrace(&tracer);
        }
        Ok(Self {
            executor,
            tracer,
            writer: Some(writer?),
            fork_depth: crate::process::fork::depth(),
        })
    }

    /// Ends the trace: what has ended until now is in the file then.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        if self.fork_depth != crate::process::fork::depth() {
            // The copy in a forked process, which has no such thread.
            return Ok(());
        }
        self.executor.untrace(&self.tracer);
        self.tracer.queue.finish();
        let panicked = |_| Err(io::Error::other("the trace's thread panicked"));
        writer.join().unwrap_or_else(panicked)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Who wants to know whether it was written calls `finish`.
        let _ = self.end();
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

/// Where an [`Executor`] tells what happens while it is traced.
#[derive(Clone, Default)]
pub struct Tracer {
    queue: Arc<Queue>,
}

impl Tracer {
    /// Whether it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    pub(crate) fn tell(&self, event: Event) {
        self.queue.push([event]);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

/// Why a pool that is traced is not traced once more.
pub(crate) fn already_traced() -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "this pool is being traced already: finish that trace first",
    )
}

/// That a chunk is traced: where to, and what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    pub(crate) tracer: Tracer,
    /// `None`: an initializer.
    pub(crate) entry: Option<Entry>,
    /// Nobody else wants to know.
    pub(crate) is_all: bool,
}

impl Traced {
    /// Tells of the items of a piece that is about to be delivered.
    pub(crate) fn tell(&self, piece: &Piece) {
        let Some(ledger) = piece.ledger() else {
            return;
        };
        let function = self.entry.map_or("initializer", Entry::name);
        let now = sys::now_ns();
        let mut events = Vec::with_capacity(piece.count as usize);
        piece.visit(piece.first, |index, outcome| {
            let error = outcome.err().map(|error| error.kind());
            events.push(ledger.event(function, index - piece.first, index, error, now));
        });
        self.tracer.queue.push(events);
    }
}

/// Events on their way to the file.
struct Queue {
    /// When the trace began, in nanoseconds of the monotonic clock.
    start: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Events for which there was no room.
    dropped: u64,
    is_finished: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            start: sys::now_ns(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.lock();
        if state.is_finished {
            return;
        }
        let was_empty = state.events.is_empty();
        for event in events {
            if state.events.len() < MAX_EVENTS {
                state.events.push(event);
            } else {
                state.dropped += 1;
            }
        }
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
    }

    fn finish(&self) {
        self.lock().is_finished = true;
        self.changed.notify_one();
    }

    /// Writes what comes until the trace is finished. Without a lock, so that whoever has
    /// something to tell never waits for a disk.
    fn write(&self, mut writer: Writer<impl Write>) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut written = writer.begin();
        loop {
            let mut state = self.lock();
            while state.events.is_empty() && !state.is_finished {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut state.events);
            let dropped = std::mem::take(&mut state.dropped);
            let is_last = state.is_finished;
            drop(state);
            for event in batch.drain(..) {
                written = written.and_then(|()| writer.event(&event));
            }
            if dropped > 0 {
                written = written.and_then(|()| writer.dropped(dropped, sys::now_ns()));
            }
            if is_last {
                return written.and_then(|()| writer.end(sys::now_ns()));
            }
            // So that a program that is killed leaves what there was.
            written = written.and_then(|()| writer.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::worker_exit::EndReason;
    use super::*;
    use crate::worker::WorkerInfo;

    #[test]
    fn memory_is_bounded_and_what_is_dropped_is_counted() {
        let queue = Queue::default();
        let event = || Event::WorkerEnded {
            worker: WorkerInfo::new(1, 0, 2),
            reason: EndReason::Crashed,
            at: 0,
        };
        queue.push((0..MAX_EVENTS + 7).map(|_| event()));
        queue.finish();
        queue.push([event()]);
        let mut text = Vec::new();
        queue
            .write(Writer::new(&mut text, 0))
            .expect("memory can be written");
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("7 events were dropped"), "{}", &text[..200]);
        assert_eq!(text.matches("\"ended: ").count(), MAX_EVENTS);
        assert!(text.starts_with("[\n") && text.ends_with("\n]\n"));
    }
}
