//! Which outcomes are allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use procpool::{TaskError, TaskErrorKind};
use rustix::process::Signal;

use super::agents;
use super::backend::Config;
use super::effects::Harm;
use super::job::{Item, Job};
use super::ledger::{Ledger, Runs, Told};
use super::notes;
use super::plan::Options;
use super::victims::{Family, Victims};

/// The outcome of an item that was to kill its worker, which the killer has killed as well: nobody
/// knows who was first.
pub(crate) const DIED_OR_KILLED: &str = "died-or-killed";

/// The exit code of a worker that cannot wake the pool.
const UNHEARD: i32 = 114;

/// What is said of a worker that was killed because it cannot be heard.
const CLOSED: &str = "had closed its connection to the pool";

/// How long before a call somebody may have been killed, or held, whose death its items are told
/// of: they were handed to a worker of whose death the pool did not know.
const BEFORE: Duration = Duration::from_secs(10);

/// What is known of a pool.
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) config: Config,
    /// Whether its workers are on other machines.
    pub(crate) is_cluster: bool,
    /// Before it was built.
    pub(crate) since: Instant,
    /// Whose fork servers start its workers.
    pub(crate) family: Option<Family>,
    /// Set before it is closed.
    pub(crate) is_closed: AtomicBool,
    /// Set before it is terminated or dropped.
    pub(crate) is_terminated: AtomicBool,
    /// It was seen to have ended unaided.
    pub(crate) is_dead: AtomicBool,
}

impl Facts {
    pub(crate) fn new(name: String, config: Config, is_cluster: bool) -> Self {
        Self {
            name,
            config,
            is_cluster,
            since: Instant::now(),
            family: None,
            is_closed: AtomicBool::new(false),
            is_terminated: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
        }
    }

    fn token(&self) -> u64 {
        self.config
            .beginning
            .as_ref()
            .map_or(0, |beginning| beginning.token)
    }
}

/// What is known of a call.
pub(crate) struct CallRecord {
    pub(crate) kind: &'static str,
    pub(crate) job: &'static str,
    pub(crate) options: Options,
    pub(crate) pool: Arc<Facts>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) victims: Arc<Victims>,
    pub(crate) begun: Instant,
    /// Set before it is cancelled or killed.
    pub(crate) is_stopped: AtomicBool,
}

/// An allowed outcome.
struct Verdict {
    label: &'static str,
    runs: Runs,
}

impl CallRecord {
    /// Enters the outcome of an item, which has ended with it.
    pub(crate) fn enter<J: Job>(
        &self,
        item: &Item,
        index: Option<usize>,
        outcome: Result<&J::Answer, &TaskError>,
    ) {
        let verdict = self.verdict::<J>(item, index, outcome);
        let Verdict { label, runs } = verdict.unwrap_or_else(|why| {
            self.complain(item, outcome.err(), &why);
            // That is enough of it.
            let runs = Runs {
                least: 0,
                most: u8::MAX,
            };
            Verdict {
                label: "WRONG",
                runs,
            }
        });
        let told = outcome.err().map(|error| self.told(item, error));
        let ending = (self.kind, label);
        self.ledger.expect_runs(item.id, runs, ending, told);
        self.ledger.count(self.kind, label, 1);
        self.ledger.end(1);
    }

    /// Enters items whose outcome nobody looks at.
    pub(crate) fn enter_unseen(&self, items: &[Item]) {
        for item in items {
            let runs = Runs {
                least: 0,
                most: self.most_runs(),
            };
            let ending = (self.kind, "unseen");
            self.ledger.expect_runs(item.id, runs, ending, None);
        }
        if !items.is_empty() {
            self.ledger.count(self.kind, "unseen", items.len());
            self.ledger.end(items.len());
        }
    }

    /// Checks an outcome that is not the one to be entered, such as a callback's.
    pub(crate) fn check<J: Job>(
        &self,
        item: &Item,
        index: Option<usize>,
        outcome: Result<&J::Answer, &TaskError>,
    ) {
        if let Err(why) = self.verdict::<J>(item, index, outcome) {
            self.complain(item, outcome.err(), &why);
        }
    }

    /// Says what is wrong.
    pub(crate) fn complain(&self, item: &Item, error: Option<&TaskError>, why: &str) {
        let pool = &self.pool;
        let outcome = error.map_or_else(|| "a value".into(), |error| format!("{error:?}"));
        self.ledger.violation(&format!(
            "{why}: {} of {} ended with {outcome}; {item:?}, {:?}, stopped {:?}, {} with {:?}, \
             closed {:?}, terminated {:?}, {:?} after the call",
            self.kind,
            self.job,
            self.options,
            self.is_stopped,
            pool.name,
            pool.config,
            pool.is_closed,
            pool.is_terminated,
            self.begun.elapsed(),
        ));
    }

    fn told(&self, item: &Item, error: &TaskError) -> Told {
        Told {
            deed: item.deed,
            error: error.kind(),
            worker: error.worker().map_or(0, |worker| worker.pid()),
            agent: error.machine().and_then(agents::number),
            signal: error.signal(),
            code: error.exit_code(),
            retries: self.options.retries,
            after: self.begun.elapsed(),
            at: notes::now(),
        }
    }

    fn most_runs(&self) -> u8 {
        u8::try_from(self.options.retries)
            .unwrap_or(u8::MAX)
            .saturating_add(1)
    }

    /// How often an item has run at least that has ended with its panic.
    fn least_panics(&self) -> u8 {
        let asks_for_all = self.options.backoff.is_some()
            && self.options.timeout.is_none()
            && !self.is_stopped.load(Ordering::SeqCst)
            && !self.pool.is_terminated.load(Ordering::SeqCst);
        // Who was killed may have had no time to note that it ran.
        let since = self.begun.checked_sub(BEFORE).unwrap_or(self.begun);
        if asks_for_all && !self.victims.any_since(since) {
            self.most_runs()
        } else {
            1
        }
    }

    fn verdict<J: Job>(
        &self,
        item: &Item,
        index: Option<usize>,
        outcome: Result<&J::Answer, &TaskError>,
    ) -> Result<Verdict, String> {
        let most = self.most_runs();
        let verdict = |label, least, most| {
            Ok(Verdict {
                label,
                runs: Runs { least, most },
            })
        };
        let error = match outcome {
            Ok(answer) => {
                if !item.deed.can_succeed() {
                    return Err("it cannot succeed".into());
                }
                J::check(item, answer, self.pool.token())?;
                let Some(failure) = J::nested_failure(answer) else {
                    return verdict("ok", 1, most);
                };
                // Workers that were started when descriptors were short have few forever, and
                // so have those of their pools.
                return if self.victims.has_killed_below(failure.pid, self.begun)
                    || self.victims.is_short(failure.descriptors)
                {
                    verdict("nested", 1, most)
                } else {
                    Err(format!("its own pool failed: {}", failure.why))
                };
            }
            Err(error) => error,
        };
        if error.index() != index {
            return Err(format!(
                "its index is {:?} and not {index:?}",
                error.index()
            ));
        }
        match error.kind() {
            TaskErrorKind::Panicked => {
                let order = format!("as ordered by {}", item.id);
                if item.deed.panics() && error.panic_message() == Some(&order) {
                    verdict("panicked", self.least_panics(), most)
                } else {
                    Err("it was not to panic".into())
                }
            }
            // Something in its worker has closed descriptors, and a copy holds them.
            TaskErrorKind::WorkerLost if error.exit_code() == Some(UNHEARD) => {
                verdict("unheard", 0, most)
            }
            // The same without a copy: a task that goes on for long after that is lost.
            TaskErrorKind::WorkerLost
                if error.to_string().contains(CLOSED)
                    && (item.deed.is_long() || self.was_held(error)) =>
            {
                verdict("disconnected", 0, most)
            }
            TaskErrorKind::WorkerLost if self.pool.is_cluster && error.worker().is_none() => {
                self.was_agent_lost(error)?;
                self.had_all_attempts(item)?;
                self.victims.effects.add(Harm::LoseAgent, true);
                verdict("agent-lost", 0, most)
            }
            TaskErrorKind::WorkerLost
                if self.pool.is_cluster && error.machine().and_then(agents::number).is_none() =>
            {
                Err("it does not say which machine its worker was on".into())
            }
            TaskErrorKind::WorkerLost => {
                if item.deed.own_death() == Some((error.signal(), error.exit_code())) {
                    // The killer may have been there first, before it could note that it ran.
                    match self.was_killed(item, error) {
                        Ok(()) => verdict(DIED_OR_KILLED, 0, most),
                        Err(_) => verdict("died", 1, most),
                    }
                } else {
                    self.was_killed(item, error)?;
                    let is_known = error.signal().is_some() || error.exit_code().is_some();
                    let label = if is_known { "killed" } else { "lost" };
                    verdict(label, 0, most)
                }
            }
            TaskErrorKind::TimedOut => match self.options.timeout {
                Some(timeout) if self.begun.elapsed() >= timeout => verdict("timed-out", 0, most),
                Some(_) => Err("its time was not over".into()),
                None => Err("it had no timeout".into()),
            },
            TaskErrorKind::Cancelled => {
                if self.is_stopped.load(Ordering::SeqCst)
                    || self.pool.is_terminated.load(Ordering::SeqCst)
                {
                    verdict("cancelled", 0, most)
                } else {
                    Err("nobody cancelled it".into())
                }
            }
            TaskErrorKind::Closed => {
                if self.pool.is_closed.load(Ordering::SeqCst)
                    || self.pool.is_terminated.load(Ordering::SeqCst)
                {
                    verdict("closed", 0, 0)
                } else {
                    Err("the pool is open".into())
                }
            }
            TaskErrorKind::Encode => {
                if item.deed.argument().fails_to_encode() {
                    verdict("encode", 0, 0)
                } else if item.deed.answer().fails_to_encode() {
                    verdict("encode", 1, most)
                } else {
                    Err("it can be encoded".into())
                }
            }
            TaskErrorKind::Decode => {
                if item.deed.argument().fails_to_decode() {
                    verdict("decode", 0, 0)
                } else if item.deed.answer().fails_to_decode() {
                    verdict("decode", 1, most)
                } else {
                    Err("it can be decoded".into())
                }
            }
            TaskErrorKind::Initializer => {
                self.pool.is_dead.store(true, Ordering::SeqCst);
                if self
                    .pool
                    .config
                    .beginning
                    .as_ref()
                    .is_some_and(|it| it.fails_in.is_some())
                    // An agent builds a pool of its own, as a program does.
                    || self.victims.workers_since(self.pool.since)
                        >= if self.pool.is_cluster { 1 } else { 3 }
                {
                    verdict("initializer", 0, most)
                } else {
                    Err("the initializer does not fail".into())
                }
            }
            TaskErrorKind::Launch => {
                self.pool.is_dead.store(true, Ordering::SeqCst);
                self.explain_end(error)?;
                verdict("no-worker", 0, most)
            }
            _ => Err("the call makes sense".into()),
        }
    }

    /// Whether the worker that an item was lost with was held up.
    fn was_held(&self, error: &TaskError) -> bool {
        let worker = error.worker().map_or(0, |worker| worker.pid());
        let since = self.begun.checked_sub(BEFORE).unwrap_or(self.begun);
        self.victims.has_held(worker, self.pool.family, since)
    }

    /// Whether the end of the pool, by no fault of its tasks, has an explanation.
    fn explain_end(&self, error: &TaskError) -> Result<(), String> {
        let (victims, since) = (&self.victims, self.pool.since);
        if victims.both_servers_since(since) || victims.was_short_since(since) {
            return Ok(());
        }
        if error.to_string().contains("fork server") {
            return Err("no fork server was killed together with its standby".into());
        }
        // The pool gives up after three launches in a row that fail.
        let beginning = self.pool.config.beginning.as_ref();
        let own = if beginning.is_some_and(|it| it.fails_in.is_some()) {
            2
        } else {
            0
        };
        if victims.workers_since(since) + own < 3 {
            return Err("nobody killed three workers".into());
        }
        // The last one is named.
        if error.signal() == Some(Signal::KILL.as_raw())
            && let Some(worker) = error.worker()
            && !victims.has_killed(worker.pid(), since)
            && !victims.has_killed_server(self.pool.family, since)
        {
            return Err("nobody killed that worker".into());
        }
        Ok(())
    }

    /// Whether the agent that an item was lost with was killed, or was out of reach for longer than
    /// its lease. One that was asked to leave loses nothing.
    fn was_agent_lost(&self, error: &TaskError) -> Result<(), String> {
        let agents = &self.victims.agents;
        let agent = error.machine().and_then(agents::number);
        let agent = agent.ok_or("it does not say which machine was lost")?;
        if agents.is_lost_since(agent, notes::ago(self.begun.elapsed() + BEFORE)) {
            return Ok(());
        }
        Err(format!(
            "nobody has made that agent be lost; at {}, {}",
            notes::now(),
            agents.describe(agent)
        ))
    }

    /// Whether enough has happened for an item to be lost for good that is tried again, and does
    /// nothing by which it is lost.
    fn had_all_attempts(&self, item: &Item) -> Result<(), String> {
        if item.deed.own_death().is_some() || self.options.timeout.is_some() {
            return Ok(());
        }
        let since = self.begun.elapsed() + BEFORE;
        let workers = Instant::now()
            .checked_sub(since)
            .map_or(0, |since| self.victims.workers_since(since));
        let events = self.victims.agents.events_since(notes::ago(since)) + workers;
        let attempts = self.options.retries as usize + 1;
        if events >= attempts {
            return Ok(());
        }
        Err(format!(
            "it has {attempts} attempts, and only {events} things have happened"
        ))
    }

    /// Whether the killer has killed the worker that an item was lost with.
    fn was_killed(&self, item: &Item, error: &TaskError) -> Result<(), String> {
        let worker = error
            .worker()
            .ok_or("it does not say which worker was lost")?
            .pid();
        let family = self.pool.family;
        let since = self.begun.checked_sub(BEFORE).unwrap_or(self.begun);
        let since = since.max(self.pool.since);
        let is_victim = self.victims.has_killed(worker, since);
        // The workers of a fork server die with it, and nobody learns how they ended.
        let with_server = self.victims.has_killed_server(family, since);
        if error.signal() == Some(Signal::KILL.as_raw()) && (is_victim || with_server) {
            return Ok(());
        }
        let is_unknown = error.signal().is_none() && error.exit_code().is_none();
        // How one ended is not told in time if that one was held, or who has to tell.
        let is_late = (is_victim || item.deed.own_death().is_some())
            && self.victims.has_held(worker, family, since);
        if is_unknown && (with_server || is_late) {
            return Ok(());
        }
        let done = self.victims.describe(worker);
        Err(format!(
            "nobody killed its worker {worker}, to which was done: {done}"
        ))
    }
}
