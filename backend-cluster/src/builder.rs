//! What a pool is built by.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use procpool_core::{
    BuildError, BuildErrorKind, InitializerOutcome, Output, Portable, Stateless, WorkerOptions,
    assert_captures_nothing,
};
use tokio::runtime::Builder;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::LocalSet;

use crate::client::{Client, Settings, Shared, THREAD};
use crate::init::check_not_passed_by;
use crate::local::Local;
use crate::nats::{Connection, Role, ServerOptions};
use crate::pool::ClusterPool;
use crate::programs::{publish, this_program};

/// Where the server keeps deliveries that no agent has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In its memory. If it restarts, the client sends them again.
    #[default]
    Memory,
    /// In a file.
    File,
}

/// The options of a [`ClusterPool`].
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug, Clone)]
pub struct ClusterPoolBuilder {
    server: ServerOptions,
    agents_timeout: Duration,
    server_timeout: Duration,
    storage: Storage,
    workers: WorkerOptions,
    stdout: Output,
    stderr: Output,
    /// Whether this program is published, and the file with the key that signs it.
    program: Option<Option<PathBuf>>,
    /// Agents that are started for the pool: the workers of each.
    local_agents: Vec<usize>,
}

impl ClusterPoolBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            server: ServerOptions {
                url: url.to_owned(),
                ..ServerOptions::default()
            },
            agents_timeout: Duration::from_secs(30),
            server_timeout: Duration::from_secs(30),
            storage: Storage::default(),
            workers: WorkerOptions::default(),
            stdout: Output::inherit(),
            stderr: Output::inherit(),
            program: None,
            local_agents: Vec::new(),
        }
    }

    /// How long tasks wait for an agent while there is none. Then they fail with an error of kind
    /// `Launch`. Without it, 30 seconds.
    pub fn agents_timeout(mut self, timeout: Duration) -> Self {
        self.agents_timeout = timeout;
        self
    }

    /// How long tasks wait for the server while there is no connection. Then they fail with an
    /// error of kind `Launch`. Without it, 30 seconds.
    pub fn server_timeout(mut self, timeout: Duration) -> Self {
        self.server_timeout = timeout;
        self
    }

    /// Where the server keeps what waits: in memory without it.
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// A file with what the server knows this client by: credentials as the tool `nsc` writes them
    /// (a JWT and a seed), or an nkey's seed alone.
    pub fn credentials(mut self, path: impl AsRef<Path>) -> Self {
        self.server.credentials = Some(path.as_ref().into());
        self
    }

    /// Only an encrypted connection, to a server whose certificate the authorities in this file
    /// (PEM) have signed. For those that the system trusts, an address like `tls://host:4222` is
    /// enough.
    pub fn tls(mut self, authorities: impl AsRef<Path>) -> Self {
        self.server.authorities = Some(authorities.as_ref().into());
        self.server.requires_tls = true;
        self
    }

    /// The certificate that this client shows, and its key (PEM), where the server asks for one.
    pub fn tls_identity(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let paths = (certificate.as_ref().into(), key.as_ref().into());
        self.server.identity = Some(paths);
        self.server.requires_tls = true;
        self
    }

    /// A function to run once in each worker before its first task: see
    /// `PoolBuilder::initializer`. An agent starts its workers for this pool when it gets the first
    /// task; if one fails there, the task's error has the reason.
    pub fn initializer<F, A, R>(mut self, initializer: F, argument: A) -> Self
    where
        F: Fn(A) -> R + Stateless,
        A: Portable,
        R: InitializerOutcome,
    {
        const { assert_captures_nothing::<F>() };
        self.workers.set_initializer(initializer, &argument);
        self
    }

    /// How many tasks a worker runs before a new one takes its place.
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.workers.set_max_tasks_per_child(tasks);
        self
    }

    /// How many bytes the encoded result of one task may have. Without it, 4 GiB.
    pub fn max_result_bytes(mut self, bytes: u64) -> Self {
        self.workers.set_max_result_bytes(bytes);
        self
    }

    /// Confines each worker, after its initializer and before its first item: see
    /// `PoolBuilder::sandbox`. Paths that it allows are those of the agents' machines, and so is
    /// the kernel that it needs: where that lacks a part, or a path cannot be opened, tasks fail
    /// with an error of kind [`Invalid`](procpool_core::TaskErrorKind::Invalid) that says so.
    ///
    /// It protects an agent from what its tasks read, not from a client: a client chooses the
    /// sandbox, or none, and which function runs first in each worker.
    #[cfg(feature = "sandbox")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sandbox")))]
    pub fn sandbox(mut self, sandbox: procpool_sandbox::Sandbox) -> Self {
        self.workers.set_sandbox(sandbox);
        self
    }

    /// What becomes of what workers write to standard output. Inherited, it goes where their
    /// agent's goes; captured, its lines come here, with the worker's name and machine.
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// The same for standard error.
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }

    /// How much memory a worker may have, in bytes.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.workers.set_memory_limit(bytes);
        self
    }

    /// Publishes this program at the server, so that agents need not have it: `procpool-agent`
    /// fetches and executes it, where it runs with `--allow-unsigned`. See `docs/cluster.md`.
    ///
    /// `build` uploads each build of the program once; the server keeps it for 30 days. The program
    /// must run on the agents' machines: on the same kind of processor, with libraries that are
    /// there.
    ///
    /// Without the permission to do that, or the storage for it, `build` fails.
    pub fn publish_program(mut self) -> Self {
        self.program.get_or_insert(None);
        self
    }

    /// Publishes this program as [`publish_program`](Self::publish_program) does, and signs it with
    /// the nkey in this file: a `procpool-agent` that trusts the key executes it. `procpool-agent
    /// new-key FILE` makes such a file.
    ///
    /// ```no_run
    /// # mod procpool {
    /// #     pub use procpool_cluster::*;
    /// #     pub use procpool_core::*;
    /// # }
    /// use procpool::ClusterPool;
    ///
    /// # fn main() -> Result<(), procpool::BuildError> {
    /// let builder = ClusterPool::builder("nats://queue.example:4222");
    /// let pool = builder.sign_program("signing.seed").build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_program(mut self, key: impl AsRef<Path>) -> Self {
        self.program = Some(Some(key.as_ref().into()));
        self
    }

    pub(crate) fn token(mut self, token: String) -> Self {
        self.server.token = Some(token);
        self
    }

    /// Agents on this machine with so many workers each, which go with the pool: for tests.
    #[doc(hidden)]
    pub fn local_agents(mut self, processes: &[usize]) -> Self {
        self.local_agents = processes.to_vec();
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When an option makes no sense, there is no such server, or it does not permit this; or when
    /// this process is to be an agent (`PROCPOOL_AGENT` is set), and has not called `init`.
    pub fn build(self) -> Result<ClusterPool, BuildError> {
        check_not_passed_by()?;
        if self.local_agents.is_empty() {
            return Ok(ClusterPool::new(self.start()?, None));
        }
        let local = Local::elsewhere(self.local_agents.clone())?;
        self.build_with(local)
    }

    pub(crate) fn local(agents: usize) -> Result<ClusterPool, BuildError> {
        let local = Local::start(agents)?;
        let (url, token) = local.server().expect("it was started");
        Self::new(&url).token(token).build_with(local)
    }

    fn build_with(self, local: Local) -> Result<ClusterPool, BuildError> {
        let server = self.server.clone();
        let shared = self.start()?;
        let local = local.start_agents(&server, &shared)?;
        Ok(ClusterPool::new(shared, Some(local)))
    }

    /// Starts the pool's thread.
    fn start(self) -> Result<Arc<Shared>, BuildError> {
        let failed = |text: String| BuildError::new(BuildErrorKind::Launch, text);
        let program = self.program.as_ref();
        let program = program.map(|key| this_program(key.as_deref())).transpose();
        let settings = Settings {
            program: program.map_err(failed)?,
            agents_timeout: self.agents_timeout,
            server_timeout: self.server_timeout,
            in_file: self.storage == Storage::File,
            options: self.workers.to_bytes()?,
            contents: self.workers.contents(),
            url: self.server.shown(),
            stdout: self.stdout,
            stderr: self.stderr,
        };
        let server = self.server;
        let (commands, received) = unbounded_channel();
        let shared = Arc::new(Shared::new(commands.clone()));
        let of_thread = shared.clone();
        let (sender, begun) = mpsc::channel();
        let body = move || {
            let end = EndGuard(of_thread.clone());
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let text = format!("there is no runtime to be had: {error}");
                    let _ = sender.send(Err(text));
                    return;
                }
            };
            let client = async move {
                let opened = Connection::open(&server, Role::Client, "procpool client").await;
                let (mut connection, answers) = match opened {
                    Ok(opened) => opened,
                    Err(error) => {
                        // Who builds the pool waits for it.
                        let _ = sender.send(Err(error.to_string()));
                        return;
                    }
                };
                if let Some(manifest) = settings.program.clone()
                    && let Err(text) = publish(connection.client().clone(), manifest).await
                {
                    let reason = connection.forbidden();
                    // As above.
                    let _ = sender.send(Err(
                        reason.map_or(text.clone(), |it| format!("{text}: {it}"))
                    ));
                    return;
                }
                let ready = sender.clone();
                let client =
                    Client::new(connection, answers, settings, of_thread, commands, ready).await;
                match client {
                    Ok((client, subscriptions)) => client.run(subscriptions, received).await,
                    Err(text) => {
                        // Who builds the pool waits for it.
                        let _ = sender.send(Err(text));
                    }
                }
            };
            LocalSet::new().block_on(&runtime, client);
            drop(end);
        };
        std::thread::Builder::new()
            .name(THREAD.into())
            .spawn(body)
            .map_err(|error| failed(format!("there is no thread to be had: {error}")))?;
        match begun.recv() {
            Ok(Ok(())) => Ok(shared),
            Ok(Err(text)) => Err(failed(text)),
            Err(_) => Err(failed("the pool's thread has ended".into())),
        }
    }
}

/// Says that the thread has ended, however it does.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}
