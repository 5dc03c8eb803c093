//! What every worker is doing right now.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::worker_info::WorkerInfo;

/// What every worker of a pool is doing right now: what [`Pool::dump`](crate::Pool::dump) returns.
/// To be printed:
///
/// ```text
/// 2 workers, 3 items queued
/// PoolWorker-1 (pid 4711): runs thumbnails::decode, item 17, for 2.31s (4 done before it, 5 to come); 9 items wait behind it
///     the kernel says: S (sleeping), in futex_do_wait
///        0: __GI___futex_abstimed_wait_cancelable64
///        1: thumbnails::decode
///                  at src/main.rs:12:9
/// PoolWorker-2 (pid 4712): idle
/// ```
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dump {
    /// Items that wait in the pool's queue, for any worker.
    pub queued: u64,
    /// Each worker; of a pool without workers, none.
    pub workers: Vec<WorkerDump>,
}

/// What one worker is doing, as a part of a [`Dump`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerDump {
    /// Which worker it is; `None` where there is none, or it has not answered.
    pub info: Option<WorkerInfo>,
    /// What it is at.
    pub state: WorkerState,
    /// The item that it runs, if it runs one.
    pub task: Option<RunningTask>,
    /// Items that it was handed and has not begun.
    pub waiting: u64,
    /// What the kernel says of its main thread, on which tasks run.
    pub kernel: Option<KernelState>,
    /// Where in the program it is, with names, the innermost function first; `None`: it runs
    /// nothing, or has not answered. In a build without debug information the names of inlined
    /// functions and the lines are missing.
    pub stack: Option<String>,
}

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum WorkerState {
    /// There is none in this place now.
    Down,
    /// It was started, and has not answered.
    Starting,
    /// It waits for work.
    Idle,
    /// It runs a task, or its initializer.
    Running,
    /// It was retired, and runs its finalizer.
    Draining,
    /// It was killed or has died, and is not gone yet. If that takes longer than a moment, it has
    /// no place any more, and another worker has: something keeps it, such as a debugger or a
    /// system call that cannot be interrupted, and what the kernel says of it may show what.
    Terminating,
}

/// The item that a worker runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningTask {
    /// The path of the function, or of the place where the closure is.
    pub function: Cow<'static, str>,
    /// Which item of its call it is, counted from 0.
    pub index: usize,
    /// How long it has been running, by the worker's word. That is noted only of items with a
    /// timeout or metrics, and while a trace is on; otherwise see
    /// [`chunk_running_for`](Self::chunk_running_for).
    pub running_for: Option<Duration>,
    /// How long its chunk has been running: of a first item, the same.
    pub chunk_running_for: Option<Duration>,
    /// Items of its chunk that were done before it.
    pub done_before: u32,
    /// How many items its chunk has.
    pub chunk: u32,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelState {
    /// Its state, such as `S (sleeping)`, `R (running)` or `T (stopped)`.
    pub state: String,
    /// The function of the kernel's that it waits in (`wchan`), if it waits and we may know.
    pub waits_in: Option<String>,
    /// The number of the system call that it is in, if it is in one and we may know.
    pub system_call: Option<u64>,
}

impl WorkerDump {
    /// Of a worker of which nothing else is known: for a pool of your own, which fills in the rest.
    #[must_use]
    pub fn new(info: Option<WorkerInfo>, state: WorkerState) -> Self {
        Self {
            info,
            state,
            task: None,
            waiting: 0,
            kernel: None,
            stack: None,
        }
    }
}

impl RunningTask {
    /// The item with this index of a call of this function, alone in its chunk: for a pool of your
    /// own, which fills in the rest.
    #[must_use]
    pub fn new(function: impl Into<Cow<'static, str>>, index: usize) -> Self {
        Self {
            function: function.into(),
            index,
            running_for: None,
            chunk_running_for: None,
            done_before: 0,
            chunk: 1,
        }
    }
}

impl KernelState {
    /// A process in this state: for a pool of your own, which fills in the rest.
    #[must_use]
    pub fn new(state: String) -> Self {
        Self {
            state,
            waits_in: None,
            system_call: None,
        }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} workers, {} items queued",
            self.workers.len(),
            self.queued
        )?;
        for worker in &self.workers {
            write!(f, "\n{worker}")?;
        }
        Ok(())
    }
}

impl fmt::Display for WorkerDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.info {
            Some(info) => write!(f, "{info}: ")?,
            None => f.write_str("a worker's place: ")?,
        }
        match (&self.task, self.state) {
            (Some(task), WorkerState::Running) => write!(f, "runs {task}")?,
            (Some(task), state) => write!(f, "{state}, runs {task}")?,
            (None, state) => write!(f, "{state}")?,
        }
        match self.waiting {
            0 => {}
            1 => f.write_str("; 1 item waits behind it")?,
            waiting => write!(f, "; {waiting} items wait behind it")?,
        }
        if self.task.is_none() && self.state != WorkerState::Terminating {
            return Ok(());
        }
        if let Some(kernel) = &self.kernel {
            write!(f, "\n    the kernel says: {kernel}")?;
        }
        if self.task.is_none() {
            return Ok(());
        }
        match &self.stack {
            Some(stack) => {
                for line in stack.lines() {
                    write!(f, "\n    {line}")?;
                }
                Ok(())
            }
            None => f.write_str("\n    it has not said where it is"),
        }
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, item {}", self.function, self.index)?;
        match (self.running_for, self.chunk_running_for) {
            (Some(time), _) => write!(f, ", for {time:.2?}")?,
            (None, Some(time)) if self.done_before == 0 => write!(f, ", for {time:.2?}")?,
            (None, Some(time)) => write!(f, ", its chunk for {time:.2?}")?,
            (None, None) => {}
        }
        if self.chunk > 1 {
            let after = self.chunk.saturating_sub(self.done_before + 1);
            write!(f, " ({} done before it, {after} to come)", self.done_before)?;
        }
        Ok(())
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "empty",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Draining => "leaving",
            Self::Terminating => "dying",
        })
    }
}

impl fmt::Display for KernelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        if let Some(place) = &self.waits_in {
            write!(f, ", waits in {place}")?;
        }
        if let Some(number) = self.system_call {
            write!(f, ", in system call {number}")?;
        }
        Ok(())
    }
}
