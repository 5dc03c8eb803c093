//! The pool.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procpool_core::{
    BuildError, CallId, Cancel, Chunk, Chunking, Dump, Executor, JoinError, OpenInput, Pool, Stats,
    TaskError, TaskErrorKind, Tracer, WorkerDump,
};

use crate::agent_info::AgentInfo;
use crate::builder::ClusterPoolBuilder;
use crate::client::{Command, Shared};
use crate::local::Local;

/// A pool of workers on many machines, reached over NATS.
///
/// It is a [`Pool`] like all others. Its workers belong to *agents*: the same executable, started
/// on each machine with `PROCPOOL_AGENT=nats://…` in its environment. Agents come and go at any
/// time; what there is to do waits for them.
///
/// ```no_run
/// # mod procpool {
/// #     pub use procpool_cluster::*;
/// #     pub use procpool_core::*;
/// # }
/// use procpool::{ClusterPool, Pool};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procpool::init(); // first line: the agents and their workers are this program, too
///     let pool = ClusterPool::connect("nats://queue.example:4222")?;
///     let squares = pool.map(|x: u64| x * x, 0..10)?;
///     assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
///     Ok(())
/// }
/// ```
///
/// # Failure
/// Each item gets one outcome, whoever dies or is cut off. An item without `retries` begins at most
/// once: if its machine is lost, it ends as [`TaskErrorKind::WorkerLost`], with the machine's name.
/// An agent that has not heard of this program for 5 s kills what it runs for it; after 6 s it is
/// given up here. With `retries`, what was lost goes to another agent.
///
/// # Security
/// An agent runs what whoever may submit to its server says. So give the server passwords or keys:
/// see [`ClusterPoolBuilder::credentials`] and [`ClusterPoolBuilder::tls`].
#[derive(Clone)]
pub struct ClusterPool {
    executor: Arc<dyn Executor>,
    cluster: Arc<Cluster>,
    /// Dropped with the last copy of the pool.
    _end: Arc<Terminate>,
}

impl ClusterPool {
    /// A pool at this server, with all options at their defaults.
    ///
    /// # Errors
    /// When there is no such server, or it does not permit this.
    pub fn connect(url: &str) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// The options of a pool at this server.
    ///
    /// ```no_run
    /// # mod procpool {
    /// #     pub use procpool_cluster::*;
    /// #     pub use procpool_core::*;
    /// # }
    /// use procpool::{ClusterPool, Storage};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), procpool::BuildError> {
    /// let pool = ClusterPool::builder("nats://queue.example:4222")
    ///     .credentials("client.creds")
    ///     .agents_timeout(Duration::from_secs(60))
    ///     .storage(Storage::File)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(url: &str) -> ClusterPoolBuilder {
        ClusterPoolBuilder::new(url)
    }

    /// A server and this many agents on this machine, all gone with the pool: for a trial, a test
    /// or an example.
    ///
    /// # Errors
    /// When there is no `nats-server` to be found, with what to do about it.
    pub fn local(agents: usize) -> Result<Self, BuildError> {
        ClusterPoolBuilder::local(agents)
    }

    pub(crate) fn new(shared: Arc<Shared>, local: Option<Local>) -> Self {
        let cluster = Arc::new(Cluster {
            shared,
            joining: AtomicBool::new(false),
            pid: std::process::id(),
        });
        Self {
            executor: cluster.clone(),
            _end: Arc::new(Terminate {
                cluster: cluster.clone(),
                local: Mutex::new(local),
            }),
            cluster,
        }
    }

    /// The agents that there are now.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentInfo> {
        self.cluster.shared.lock().agents.clone()
    }

    /// Waits until there are workers for this many tasks at a time. `false`: there were not, in
    /// this time.
    pub fn wait_for_processes(&self, processes: usize, limit: Duration) -> bool {
        let deadline = Instant::now().checked_add(limit);
        let shared = &self.cluster.shared;
        shared.wait_for(|_| shared.slots() >= processes, deadline)
    }
}

impl Pool for ClusterPool {
    fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }
}

impl fmt::Debug for ClusterPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterPool")
            .field("agents", &self.agents())
            .finish_non_exhaustive()
    }
}

/// Ends the pool when nobody has it any more, and then what was started for it.
struct Terminate {
    cluster: Arc<Cluster>,
    /// Many threads have the pool, and one at a time may look in here.
    local: Mutex<Option<Local>>,
}

impl Drop for Terminate {
    fn drop(&mut self) {
        if self.cluster.is_foreign() {
            // The server and the agents are the other process's.
            let _ = ManuallyDrop::new(self.local.get_mut().map(Option::take));
            return;
        }
        self.cluster.terminate();
        let local = self.local.get_mut();
        if let Some(local) = local.unwrap_or_else(PoisonError::into_inner).take() {
            // The client says goodbye first.
            let limit = Instant::now() + Duration::from_secs(1);
            self.cluster
                .shared
                .wait_for(|state| state.has_ended, Some(limit));
            drop(local);
        }
    }
}

/// What runs a pool's calls.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    joining: AtomicBool,
    /// The process that has built it. In a fork of it there is no thread that does anything.
    pid: u32,
}

impl Executor for Cluster {
    fn is_foreign(&self) -> bool {
        std::process::id() != self.pid
    }

    fn submit(&self, chunk: Chunk) {
        if self.is_foreign() {
            let text = "the pool belongs to the process that this one was forked from";
            return chunk.finish(&TaskError::other(TaskErrorKind::Closed, text));
        }
        self.shared.submit(chunk);
    }

    fn resubmit(&self, chunk: Chunk) {
        self.shared.resubmit(chunk);
    }

    fn watch_input(&self, open: Arc<dyn OpenInput>) -> bool {
        if !self.is_foreign() {
            self.shared.watch_input(open);
        }
        true
    }

    fn unwatch_input(&self, open: &dyn OpenInput) {
        if !self.is_foreign() {
            self.shared.unwatch_input(open);
        }
    }

    fn has_idle_worker(&self, look_again: bool) -> bool {
        if self.is_foreign() {
            return false;
        }
        let is_idle = self.shared.has_idle_worker();
        if is_idle && look_again {
            self.shared.ask_inputs_soon();
        }
        // What is submitted to a closed pool ends at once.
        is_idle || self.shared.lock().is_closed
    }

    fn cancel(&self, call: CallId, how: Cancel) -> bool {
        let kill = how == Cancel::Kill;
        self.shared.tell(Command::Cancel { call, kill })
    }

    fn spawn_callback(&self, job: Box<dyn FnOnce() + Send>) {
        self.shared.callbacks.run(job);
    }

    fn processes(&self) -> usize {
        self.shared.slots().max(1)
    }

    fn chunking(&self) -> Chunking {
        let mut chunking = Chunking::default();
        chunking.target = Duration::from_millis(25);
        chunking.max_bytes = 256 * 1024;
        chunking
    }

    fn close(&self) {
        self.shared.lock().is_closed = true;
        // Without a thread it has ended already.
        self.shared.tell(Command::Close);
    }

    fn terminate(&self) {
        self.shared.lock().is_closed = true;
        self.shared.tell(Command::Terminate);
    }

    fn join(&self, deadline: Option<Instant>) -> Result<bool, JoinError> {
        if self.shared.callbacks.is_current_thread() {
            return Err(JoinError::from_inside());
        }
        if !self.shared.lock().is_closed {
            return Err(JoinError::not_closed());
        }
        if !self.joining.swap(true, Ordering::Relaxed) {
            self.shared.tell(Command::Join);
        }
        let has_ended = self.shared.wait_for(|state| state.has_ended, deadline);
        Ok(has_ended && self.shared.callbacks.wait_until_idle(deadline))
    }

    fn tracer(&self) -> io::Result<&Tracer> {
        Ok(&self.shared.tracer)
    }

    fn dump(&self) -> Dump {
        let answer = self.shared.ask(Command::Dump);
        answer.unwrap_or_default()
    }

    fn activity(&self) -> Vec<WorkerDump> {
        let answer = self.shared.ask(Command::Activity);
        answer.unwrap_or_default().workers
    }

    fn stats(&self) -> Stats {
        let answer = self.shared.ask(Command::Stats);
        answer.unwrap_or_else(|| self.shared.stats(0))
    }
}
