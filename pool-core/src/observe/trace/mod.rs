//! Traces: what every worker did, as a file for Chrome, Perfetto and `cargo xtask timeline`.

mod event;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};

pub(crate) use self::event::Event;
use self::event::Writer;
use super::worker_exit::ExitReason;
use crate::process::worker_info::WorkerInfo;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::sys;

/// How many events may wait to be written; those beyond are counted, and not kept.
const MAX_EVENTS: usize = 1 << 16;

/// Where an [`Executor`](crate::Executor) reports what happens while it is traced. Clones are the
/// same tracer, and equal.
///
/// An executor reports its workers itself. Items report themselves when they have their outcome,
/// once their chunk was [told](crate::Chunk::trace) whom to.
#[derive(Clone, Default)]
pub struct Tracer {
    queue: Arc<Queue>,
}

impl Tracer {
    /// Reports a worker that is up from now on, in this place of the pool, counted from 0.
    pub fn worker_up(&self, worker: &WorkerInfo, position: usize) {
        self.tell(Event::WorkerUp {
            worker: worker.clone(),
            position,
            at: sys::now_ns(),
        });
    }

    /// Reports a worker that has ended.
    pub fn worker_ended(&self, worker: &WorkerInfo, reason: ExitReason) {
        self.tell(Event::WorkerEnded {
            worker: worker.clone(),
            reason,
            at: sys::now_ns(),
        });
    }

    pub(crate) fn tell(&self, event: Event) {
        self.queue.push([event]);
    }

    pub(crate) fn tell_all(&self, events: Vec<Event>) {
        self.queue.push(events);
    }

    /// Writes what is reported there, in a thread, until [`finish`](Self::finish).
    pub(crate) fn write_to(
        &self,
        file: impl Write + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<()>>> {
        let queue = self.queue.clone();
        let writer = Writer::new(file, queue.start);
        thread::Builder::new()
            .name("procpool-trace".into())
            .spawn(move || sys::without_size_signal(|| queue.write(writer)))
    }

    /// Later reports are not written.
    pub(crate) fn finish(&self) {
        self.queue.finish();
    }
}

impl PartialEq for Tracer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }
}

impl Eq for Tracer {}

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

    /// Writes what comes until the trace is finished. Without a lock, so that a thread that has
    /// something to report never waits for a disk.
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
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_dropped_is_counted() {
        let queue = Queue::default();
        let event = || Event::WorkerEnded {
            worker: WorkerInfo::new(1, 0, 2),
            reason: ExitReason::Crashed,
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
