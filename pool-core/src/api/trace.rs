//! A pool's trace, as its user holds it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use crate::observe::event_queue::EventQueue;
use crate::observe::trace;
use crate::observe::tracer::{Observe, Tracer};
use crate::process::fork;
use crate::sync::thread::JoinHandle;
use crate::task::executor::Executor;

/// A trace that is being written: what [`Pool::trace_to`](crate::Pool::trace_to) returns. It ends
/// when this is dropped.
#[must_use = "a trace ends when it is dropped"]
pub struct Trace {
    tracer: Tracer,
    queue: Arc<EventQueue>,
    writer: Option<JoinHandle<io::Result<()>>>,
    fork_depth: usize,
}

impl Trace {
    pub(crate) fn start(executor: &dyn Executor, path: &Path) -> io::Result<Self> {
        // First, so that a pool that cannot be traced has no file and no thread for it.
        let tracer = executor.tracer()?.clone();
        let file = BufWriter::new(File::create(path)?);
        let queue = Arc::new(EventQueue::default());
        let writer = trace::write_to(queue.clone(), file)?;
        tracer.observe(&queue, Observe::Items);
        Ok(Self {
            tracer,
            queue,
            writer: Some(writer),
            fork_depth: fork::depth(),
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
        if self.fork_depth != fork::depth() {
            // The copy in a forked process, which has no such thread.
            return Ok(());
        }
        self.tracer.leave(&self.queue);
        let panicked = |_| Err(io::Error::other("the trace's thread panicked"));
        writer.join().unwrap_or_else(panicked)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // To know whether it was written, call `finish`.
        let _ = self.end();
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}
