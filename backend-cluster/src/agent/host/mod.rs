//! The pools of an agent, one for each client, without any network.
//!
//! A client's pool is built when its first piece begins, in a thread of its own: that takes
//! milliseconds, or as long as an initializer likes. Pieces wait for it. Nothing here waits in the
//! caller, which may be a thread of an async runtime, unless it says so.

mod hosted;
mod local_pool;
mod observation;
mod piece;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use procpool_core::{
    Dump, EncodedChunk, Observe, OutcomeBatch, OutputLine, Stats, TaskError, TaskErrorKind,
    WorkerInfo, WorkerOptions,
};

use crate::message::{ClientId, ObservedEvents, Printed};
use hosted::Hosted;
pub(crate) use local_pool::HostBackend;
pub(crate) use piece::Running;

/// What begins like this in the agent's environment is for it, and not for what it starts.
const OWN_VARIABLES: &str = "PROCPOOL_AGENT";

/// The pools of an agent.
pub(crate) struct Host {
    setup: Arc<Setup>,
    clients: Mutex<HashMap<ClientId, Arc<Hosted>>>,
}

/// What all pools have in common.
struct Setup {
    processes: usize,
    backend: HostBackend,
    /// The machine's name.
    machine: String,
    /// Variables that workers are not to have.
    hidden: Vec<OsString>,
    on_line: Box<LineSink>,
}

/// Takes a line that a worker of this client's has printed. It may block, as
/// [`Output::lines`](procpool_core::Output::lines) says.
type LineSink = dyn Fn(ClientId, WorkerInfo, &OutputLine) + Send + Sync;

/// What becomes of what workers print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Captures {
    pub(crate) stdout: Printed,
    pub(crate) stderr: Printed,
}

impl Host {
    /// Pools of this many workers each, on the machine of this name.
    pub(crate) fn new(
        processes: usize,
        backend: HostBackend,
        machine: impl Into<String>,
        on_line: impl Fn(ClientId, WorkerInfo, &OutputLine) + Send + Sync + 'static,
    ) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        let is_own = |name: &OsString| {
            let name = name.as_encoded_bytes();
            name.starts_with(OWN_VARIABLES.as_bytes())
        };
        Self {
            setup: Arc::new(Setup {
                processes,
                backend,
                machine: machine.into(),
                hidden: names.filter(is_own).collect(),
                on_line: Box::new(on_line),
            }),
            clients: Mutex::new(HashMap::new()),
        }
    }

    /// There is a client, whose workers are to be these. What
    /// [handles](WorkerOptions::missing) in the options mean was provided. One with the same number
    /// is [forgotten](Self::forget).
    pub(crate) fn welcome(&self, client: ClientId, options: WorkerOptions, captures: Captures) {
        let hosted = Hosted::new(client, options, captures, self.setup.clone());
        let old = self.lock().insert(client, Arc::new(hosted));
        if let Some(old) = old {
            old.end();
        }
    }

    /// Runs the items of a chunk for this client. What [handles](EncodedChunk::missing) in it mean
    /// was provided.
    ///
    /// `sink` is given one outcome of each item, in batches that name the machine, from any thread,
    /// perhaps before this returns. It neither blocks nor panics.
    ///
    /// # Errors
    /// When there is no such client: then `sink` is given nothing.
    pub(crate) fn begin(
        &self,
        client: ClientId,
        chunk: EncodedChunk,
        sink: impl Fn(OutcomeBatch) + Send + Sync + 'static,
    ) -> Result<Running, TaskError> {
        match self.hosted(client) {
            Some(hosted) => hosted.begin(chunk, Arc::new(sink)),
            None => Err(hosted::gone(&self.setup.machine)),
        }
    }

    /// The client is gone: what runs for it is killed, and its pool ends. All that has not ended
    /// fails as cancelled.
    pub(crate) fn forget(&self, client: ClientId) {
        let hosted = self.lock().remove(&client);
        if let Some(hosted) = hosted {
            hosted.end();
        }
    }

    /// What the workers for this client are doing; of none, where there are none. It waits for them
    /// to say it, for a moment.
    pub(crate) fn dump(&self, client: ClientId) -> Dump {
        let executor = self.executor(client);
        let mut dump = executor.map(|it| it.dump()).unwrap_or_default();
        self.name_machine(&mut dump);
        dump
    }

    /// The same as far as is known without asking them.
    pub(crate) fn activity(&self, client: ClientId) -> Dump {
        let executor = self.executor(client);
        let mut dump = Dump::default();
        dump.workers = executor.map(|it| it.activity()).unwrap_or_default();
        self.name_machine(&mut dump);
        dump
    }

    fn name_machine(&self, dump: &mut Dump) {
        for worker in &mut dump.workers {
            let info = worker.info.take();
            worker.info = info.map(|it| it.with_machine(&self.setup.machine));
        }
    }

    /// What has happened in the pool for this client, as long as there is one. It asks the system
    /// of each worker.
    pub(crate) fn stats(&self, client: ClientId) -> Stats {
        let Some(executor) = self.executor(client) else {
            return Stats::default();
        };
        let mut stats = executor.stats();
        for worker in &mut stats.workers {
            worker.info = worker.info.clone().with_machine(&self.setup.machine);
        }
        stats
    }

    /// What this client wants to know of its workers, from now on.
    pub(crate) fn observe(&self, client: ClientId, wanted: Option<Observe>) {
        if let Some(hosted) = self.hosted(client) {
            hosted.observe(wanted);
        }
    }

    /// What has happened to them since the last time; to be asked until there is nothing.
    pub(crate) fn take_observed(&self, client: ClientId) -> Option<ObservedEvents> {
        self.hosted(client)?.take_observed()
    }

    /// Ends all pools, which have nothing to do any more, in good order: then all is reported that
    /// their workers have printed. It waits for that until the deadline.
    pub(crate) fn finish(&self, deadline: Instant) {
        let clients: Vec<_> = self.lock().values().cloned().collect();
        let executors: Vec<_> = clients.iter().filter_map(|it| it.executor()).collect();
        for executor in &executors {
            executor.close();
        }
        for executor in executors {
            // It fails in a callback alone, and this is none.
            let _ = executor.join(Some(deadline));
        }
    }

    fn executor(&self, client: ClientId) -> Option<Arc<dyn procpool_core::Executor>> {
        self.hosted(client)?.executor()
    }

    fn hosted(&self, client: ClientId) -> Option<Arc<Hosted>> {
        self.lock().get(&client).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<Hosted>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let clients = std::mem::take(&mut *self.lock());
        for hosted in clients.into_values() {
            hosted.end();
        }
    }
}

/// An error of this machine.
fn error(machine: &str, kind: TaskErrorKind, message: impl Into<String>) -> TaskError {
    TaskError::other(kind, message).with_machine(machine)
}
