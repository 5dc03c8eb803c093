//! A pool's trace, as its user holds it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Arc;

use crate::observe::trace::Tracer;
use crate::process::fork;
use crate::sync::thread::JoinHandle;
use crate::task::executor::Executor;

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
        // First, so that a pool that cannot be traced, or is traced already, has no thread for it.
        executor.attach_tracer(&tracer)?;
        let writer = tracer.write_to(file);
        if writer.is_err() {
            executor.detach_tracer(&tracer);
        }
        Ok(Self {
            executor,
            tracer,
            writer: Some(writer?),
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
        self.executor.detach_tracer(&self.tracer);
        self.tracer.finish();
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
