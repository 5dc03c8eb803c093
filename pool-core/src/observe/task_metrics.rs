//! What an item took.

use std::fmt;
use std::time::Duration;

use super::item_run::Run;
use crate::process::worker_info::WorkerInfo;

/// What one item took, and which worker ran it: see [`Call::measured`](crate::Call::measured).
///
/// What happened in the worker is the worker's word. It is cut to what can be (no time is longer
/// than the time since the submission), but a task that writes into its process's memory can make
/// its own worker say anything else.
///
/// An item that failed has metrics, too, as far as things are known: what is not is `None` or
/// zero. Of an item whose worker died under it, or was killed at its deadline, it is known when it
/// began and that it ran until the pool heard of the death; of one that never began, what was done
/// in the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskMetrics {
    /// How long the item waited: from its submission, or that of this attempt, until a worker began
    /// it. In a chunk that includes the items before it.
    pub queued: Option<Duration>,
    /// How long it took to encode the argument, in the caller, and the result, in the worker. A
    /// number takes no time that could be measured, and memory that is sent as it is none.
    pub encode: Duration,
    /// How long the function ran.
    pub run: Option<Duration>,
    /// How long it took to decode the argument, in the worker, and the result, in the caller.
    pub decode: Duration,
    /// Processor time that the worker used for the item, with all threads that it has.
    pub cpu: Option<Duration>,
    /// The most bytes of memory that the worker ever had resident until the item ended; no later
    /// than that, but perhaps for an earlier item.
    pub peak_rss: Option<u64>,
    /// The worker that had the item last; `None` where it was not begun, and in a pool without
    /// workers.
    pub worker: Option<WorkerInfo>,
    /// Which attempt this was, counted from 1; more only with
    /// [`retries`](crate::Call::retries). 0: none was begun.
    pub attempt: u32,
    /// Bytes of the encoded argument.
    pub argument_bytes: u64,
    /// Bytes of the encoded result; 0 where there is none.
    pub result_bytes: u64,
}

impl TaskMetrics {
    /// Adds what is known of an item's run, which was submitted then, in nanoseconds; 0: that is
    /// not known.
    pub(crate) fn add(&mut self, run: &Run, submitted: u64) {
        let measure = &run.measure;
        self.worker = run.worker.clone();
        self.result_bytes = run.result_bytes;
        if measure.begun != 0 {
            self.run = Some(Duration::from_nanos(measure.run));
            let wait = measure.begun.checked_sub(submitted);
            self.queued = wait.filter(|_| submitted != 0).map(Duration::from_nanos);
        }
        if run.is_whole {
            self.encode += Duration::from_nanos(measure.encode);
            self.decode += Duration::from_nanos(measure.decode);
            self.cpu = Some(Duration::from_nanos(measure.cpu));
            self.peak_rss = Some(measure.peak_rss);
        }
    }
}

impl fmt::Display for TaskMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = self.run {
            write!(f, "ran {run:.1?}")?;
        } else {
            f.write_str("not run")?;
        }
        if let Some(cpu) = self.cpu {
            write!(f, " ({cpu:.1?} of processor time)")?;
        }
        if let Some(worker) = &self.worker {
            write!(f, " in {worker}")?;
        }
        if self.attempt > 1 {
            write!(f, ", attempt {}", self.attempt)?;
        }
        if let Some(queued) = self.queued {
            write!(f, "; queued {queued:.1?}")?;
        }
        let Self { encode, decode, .. } = self;
        write!(f, "; encode {encode:.1?}, decode {decode:.1?}")?;
        write!(
            f,
            "; {} bytes in, {} out",
            self.argument_bytes, self.result_bytes
        )?;
        if let Some(peak) = self.peak_rss {
            write!(f, "; peak {:.1} MiB", peak as f64 / f64::from(1 << 20))?;
        }
        Ok(())
    }
}
