//! The agent for any program: see `README.md`.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use async_nats::{Event, Subscriber};
use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::cache::Cache;
use super::manifest::{Hash, Manifest, check_key};
use super::process::Process;
use super::store::fetch;
use super::{ASK_PROGRAMS, PROGRAM};
use crate::agent::AgentOptions;
use crate::clock::{self, sleep_until};
use crate::nats::{Connection, Role};

/// How long a program that has failed twice is not executed again, at first and at most. After it
/// has failed once, it is: most likely it was killed, and calls wait for it.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A program that has run for so long has not failed at once.
const IS_WELL: Duration = Duration::from_secs(60);
/// How many programs are remembered that do not run. Of others it is forgotten what was said.
const REMEMBERED: usize = 1000;

const NO_PROGRAM: &str = "no program could be executed: name keys that are trusted, with \
     --trusted-key, or allow all with --allow-unsigned";

/// What an agent for any program may do.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct ProgramAgentOptions {
    /// The server's address.
    pub server: String,
    /// The public parts of keys: programs that these have signed are executed.
    pub trusted_keys: Vec<String>,
    /// All others are, too.
    pub allow_unsigned: bool,
    /// Where programs are kept.
    pub cache: PathBuf,
    /// In bytes.
    pub max_size: u64,
    /// How many programs at the same time.
    pub max_programs: usize,
    /// A program without a client leaves after that.
    pub idle: Duration,
}

/// What the loop learns from its tasks.
enum Report {
    /// A program was got, or not.
    Fetched(Hash, Result<PathBuf, String>),
    Ended(Hash, io::Result<ExitStatus>),
}

/// What is known of a program.
struct Program {
    state: State,
    /// How long it is left alone when it fails.
    backoff: Duration,
}

enum State {
    Fetching,
    Running {
        process: Process,
        since: Duration,
    },
    /// It has failed, and is left alone until then.
    Failed {
        until: Duration,
    },
    /// Since then, somebody may ask for it.
    MayTry,
    /// It is not to run, for this reason, which was said.
    Refused(String),
}

impl Program {
    fn new() -> Self {
        Self {
            state: State::Fetching,
            backoff: Duration::ZERO,
        }
    }

    fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn is_at_work(&self) -> bool {
        self.runs() || matches!(self.state, State::Fetching)
    }
}

/// An agent for any program.
#[doc(hidden)]
pub struct ProgramAgent {
    options: ProgramAgentOptions,
    trusted: BTreeSet<String>,
    cache: Cache,
    url: String,
    connection: Connection,
    programs: HashMap<Hash, Program>,
    reports: UnboundedSender<Report>,
    is_leaving: bool,
}

impl ProgramAgent {
    /// Serves the server until SIGTERM or SIGINT. What that asks for is in the environment.
    ///
    /// # Errors
    /// When the options or the environment make no sense, or there is no server. The text says what
    /// to do.
    pub fn run(options: ProgramAgentOptions) -> Result<(), String> {
        let agent = AgentOptions::for_server(options.server.clone())?;
        for key in &options.trusted_keys {
            check_key(key)?;
        }
        if options.trusted_keys.is_empty() && !options.allow_unsigned {
            return Err(NO_PROGRAM.to_owned());
        }
        let cache = Cache::open(options.cache.clone())?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("there is no runtime to be had: {error}"))?;
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, async {
            let name = format!("procpool-agent on {}", agent.machine);
            let opened = Connection::open(&agent.server, Role::Agent, &name).await;
            let (connection, _answers) = opened.map_err(|error| error.to_string())?;
            let manifests = connection.client().subscribe(PROGRAM).await;
            let manifests = manifests.map_err(|error| format!("the server is gone: {error}"))?;
            let (reports, received) = unbounded_channel();
            let this = Self {
                trusted: options.trusted_keys.iter().cloned().collect(),
                options,
                cache,
                url: agent.server.url,
                connection,
                programs: HashMap::new(),
                reports,
                is_leaving: false,
            };
            this.serve(manifests, received).await
        })
    }

    async fn serve(
        mut self,
        mut manifests: Subscriber,
        mut reports: UnboundedReceiver<Report>,
    ) -> Result<(), String> {
        let failed = |error: io::Error| format!("signals cannot be waited for: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        self.ask().await;
        loop {
            let wake = self.next_wake();
            tokio::select! {
                Some(message) = manifests.next() => self.hear(&message.payload),
                Some(report) = reports.recv() => self.learn(report),
                event = self.connection.event() => {
                    if let Some(Event::ServerError(error)) = event {
                        say(&format!("the server says: {error}"));
                    }
                }
                _ = terminate.recv() => self.leave(),
                _ = interrupt.recv() => self.leave(),
                () = sleep_until(wake) => {}
            }
            let is_new = self.connection.is_new();
            if self.end_backoffs() || is_new {
                self.ask().await;
            }
            // What is being fetched is not waited for.
            if self.is_leaving && !self.programs.values().any(Program::runs) {
                return Ok(());
            }
        }
    }

    /// Asks what there is.
    async fn ask(&self) {
        self.connection.send(ASK_PROGRAMS.to_owned(), vec![0]).await;
    }

    fn leave(&mut self) {
        let signal = if self.is_leaving {
            Signal::KILL
        } else {
            Signal::TERM
        };
        self.is_leaving = true;
        for program in self.programs.values() {
            if let State::Running { process, .. } = &program.state {
                process.signal(signal);
            }
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let times = self.programs.values().filter_map(|it| match it.state {
            State::Failed { until } => Some(until),
            _ => None,
        });
        times.min()
    }

    /// Whether some may be tried again.
    fn end_backoffs(&mut self) -> bool {
        let now = clock::now();
        let mut is_any = false;
        for program in self.programs.values_mut() {
            if matches!(program.state, State::Failed { until } if until <= now) {
                program.state = State::MayTry;
                is_any = true;
            }
        }
        is_any
    }

    /// A client says what its program is.
    fn hear(&mut self, payload: &[u8]) {
        let manifest = match Manifest::from_bytes(payload) {
            Ok(manifest) => manifest,
            Err(error) => {
                return say(&format!(
                    "somebody has published what is no program: {error}"
                ));
            }
        };
        let known = self.programs.get(&manifest.sha256);
        let may_try = known.is_none_or(|it| matches!(it.state, State::MayTry | State::Refused(_)));
        if self.is_leaving || !may_try {
            return;
        }
        let checked = self.check(&manifest);
        if self.programs.len() >= REMEMBERED {
            self.programs.retain(|_, it| it.is_at_work());
        }
        let program = self.programs.entry(manifest.sha256.clone());
        let program = program.or_insert_with(Program::new);
        if let Err(reason) = checked {
            if !matches!(&program.state, State::Refused(known) if *known == reason) {
                let hash = &manifest.sha256;
                say(&format!(
                    "program {:?} ({hash}) is refused: {reason}",
                    manifest.name
                ));
                program.state = State::Refused(reason);
            }
            return;
        }
        program.state = State::Fetching;
        if let Some(path) = self.cache.find(&manifest) {
            return self.start(&manifest.sha256, &path);
        }
        let (cache, client) = (self.cache.clone(), self.connection.client().clone());
        let reports = self.reports.clone();
        tokio::task::spawn_local(async move {
            let fetched = async {
                let failed = |error: io::Error| format!("there is no file for it: {error}");
                let mut file = cache.begin().map_err(failed)?;
                fetch(client, &manifest, file.as_file_mut()).await?;
                cache.keep(file, &manifest)
            };
            let fetched = fetched.await;
            // Without the agent there is nobody to tell.
            let _ = reports.send(Report::Fetched(manifest.sha256, fetched));
        });
    }

    fn check(&self, manifest: &Manifest) -> Result<(), String> {
        if !self.options.allow_unsigned {
            manifest.check_signature(&self.trusted)?;
        }
        if manifest.size > self.options.max_size {
            return Err(format!(
                "it has {} bytes, and --max-size is {}",
                manifest.size, self.options.max_size
            ));
        }
        let programs = self.programs.values();
        let programs = programs.filter(|it| it.is_at_work()).count();
        if programs >= self.options.max_programs {
            return Err(format!(
                "there are {programs} programs already, and --max-programs allows no more"
            ));
        }
        Ok(())
    }

    fn start(&mut self, hash: &Hash, path: &Path) {
        let (reports, name) = (self.reports.clone(), hash.clone());
        let on_end = move |end| {
            // Without the agent there is nobody to tell.
            let _ = reports.send(Report::Ended(name, end));
        };
        match Process::start(path, &self.url, self.options.idle, on_end) {
            Ok(process) => {
                say(&format!("program {hash} runs"));
                let since = clock::now();
                if let Some(program) = self.programs.get_mut(hash) {
                    program.state = State::Running { process, since };
                }
            }
            Err(error) => {
                let path = path.display();
                self.fail(hash, &format!("{path} cannot be executed: {error}"));
            }
        }
    }

    fn learn(&mut self, report: Report) {
        match report {
            Report::Fetched(hash, _) if self.is_leaving => {
                self.programs.remove(&hash);
            }
            Report::Fetched(hash, Ok(path)) => {
                let programs = &self.programs;
                let runs = |hash: &Hash| programs.get(hash).is_some_and(Program::is_at_work);
                if let Err(error) = self.cache.tidy(runs) {
                    say(&format!("old programs cannot be removed: {error}"));
                }
                self.start(&hash, &path);
            }
            Report::Fetched(hash, Err(reason)) => self.fail(&hash, &reason),
            Report::Ended(hash, Ok(status)) if status.success() => {
                say(&format!("program {hash} has left"));
                self.programs.remove(&hash);
            }
            Report::Ended(hash, Ok(status)) => {
                self.fail(&hash, &format!("it has ended with {status}"));
            }
            Report::Ended(hash, Err(error)) => {
                self.fail(&hash, &format!("its end cannot be waited for: {error}"));
            }
        }
    }

    fn fail(&mut self, hash: &Hash, reason: &str) {
        let Some(program) = self.programs.get_mut(hash) else {
            return;
        };
        let now = clock::now();
        if matches!(program.state, State::Running { since, .. } if now > since + IS_WELL) {
            program.backoff = Duration::ZERO;
        }
        let delay = program.backoff;
        program.backoff = (delay * 2).clamp(BACKOFF, MAX_BACKOFF);
        program.state = State::Failed { until: now + delay };
        let what_next = if delay.is_zero() {
            "is tried again".to_owned()
        } else {
            format!("is not tried for {delay:?}")
        };
        say(&format!(
            "program {hash} has failed, and {what_next}: {reason}"
        ));
    }
}

/// Tells the agent's user.
fn say(text: &str) {
    eprintln!("procpool-agent: {text}");
}
