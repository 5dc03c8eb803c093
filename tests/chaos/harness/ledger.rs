//! The book of what was begun and how it ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procpool::TaskErrorKind;

use super::action::Deed;
use super::agents::AgentNumber;
use super::effects::Harm;
use super::notes::{Note, Said};
use super::oracle::DIED_OR_KILLED;
use super::victims::Victims;

/// After this many violations the rest would say the same.
const ENOUGH: u64 = 20;

/// See the module.
pub(crate) struct Ledger {
    seed: u64,
    /// Goes up whenever something ends.
    ended: AtomicU64,
    /// Things that were begun and have not ended: items, callbacks, operations.
    outstanding: AtomicU64,
    next_id: AtomicU64,
    violations: AtomicU64,
    is_over: AtomicBool,
    is_finished: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Items by kind of call and outcome.
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// How often each item may have run, by its number.
    runs: Vec<Expected>,
    /// What [`Expected::ending`] stands for: kinds of call and outcomes.
    endings: Vec<(&'static str, &'static str)>,
    /// What was said of each item that has failed.
    told: HashMap<u64, Told>,
    /// What threads are at.
    operations: HashMap<u64, (String, Instant)>,
    next_operation: u64,
}

/// How often an item must have run at least, and may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) least: u8,
    pub(crate) most: u8,
}

/// What is noted of an item: there are millions.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    least: u8,
    most: u8,
    /// The place of its call and outcome in [`Entries::endings`].
    ending: u8,
}

/// What was said of an item that has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) deed: Deed,
    pub(crate) error: TaskErrorKind,
    /// 0: it does not say which.
    pub(crate) worker: u32,
    /// Of a cluster, if it says that.
    pub(crate) agent: Option<AgentNumber>,
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
    pub(crate) retries: u32,
    /// How long after the call.
    pub(crate) after: Duration,
    /// When, as notes of runs have it.
    pub(crate) at: u32,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} of {:?} after {:?}, at {}, with {} retries, of worker {}, agent {:?}, \
             signal {:?}, code {:?}",
            self.error,
            self.deed,
            self.after,
            self.at,
            self.retries,
            self.worker,
            self.agent,
            self.signal,
            self.code
        )
    }
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            ended: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            next_id: AtomicU64::new(1),
            violations: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
            entries: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers for this many items, the first of them.
    pub(crate) fn numbers(&self, items: usize) -> u64 {
        self.next_id.fetch_add(items as u64, Ordering::Relaxed)
    }

    /// This many things begin.
    pub(crate) fn begin(&self, things: usize) {
        self.outstanding.fetch_add(things as u64, Ordering::Relaxed);
    }

    /// This many things have ended.
    pub(crate) fn end(&self, things: usize) {
        self.outstanding.fetch_sub(things as u64, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Enters outcomes.
    pub(crate) fn count(&self, call: &'static str, outcome: &'static str, items: usize) {
        let mut entries = self.entries();
        *entries.outcomes.entry((call, outcome)).or_default() += items as u64;
    }

    /// Enters how often an item may have run that ended so.
    pub(crate) fn expect_runs(
        &self,
        id: u64,
        runs: Runs,
        ending: (&'static str, &'static str),
        told: Option<Told>,
    ) {
        if id == 0 {
            return;
        }
        let mut entries = self.entries();
        let known = entries.endings.iter().position(|it| *it == ending);
        let ending = known.unwrap_or_else(|| {
            entries.endings.push(ending);
            entries.endings.len() - 1
        });
        entries.told.extend(told.map(|told| (id, told)));
        let place = id as usize;
        if entries.runs.len() <= place {
            entries.runs.resize(place + 1, Expected::default());
        }
        entries.runs[place] = Expected {
            least: runs.least,
            most: runs.most,
            ending: u8::try_from(ending).expect("few kinds of calls and outcomes"),
        };
    }

    /// Something happened that must not.
    pub(crate) fn violation(&self, what: &str) {
        let before = self.violations.fetch_add(1, Ordering::Relaxed);
        if before < ENOUGH {
            eprintln!("VIOLATION (seed {}): {what}", self.seed);
        }
        if before + 1 >= ENOUGH {
            self.stop();
        }
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::Relaxed)
    }

    /// The storm is over: nobody begins anything new.
    pub(crate) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Nothing is outstanding any more.
    pub(crate) fn finish(&self) {
        self.is_finished.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Relaxed)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number that changes whenever something ends, and how much has not ended.
    pub(crate) fn movement(&self) -> (u64, u64) {
        (
            self.ended.load(Ordering::Relaxed),
            self.outstanding.load(Ordering::Relaxed),
        )
    }

    /// This thread is at something until the answer is dropped.
    pub(crate) fn operation(&self, what: impl Into<String>) -> Operation<'_> {
        let mut entries = self.entries();
        entries.next_operation += 1;
        let number = entries.next_operation;
        entries
            .operations
            .insert(number, (what.into(), Instant::now()));
        drop(entries);
        self.begin(1);
        Operation {
            ledger: self,
            number,
        }
    }

    /// What threads are at, the oldest first.
    pub(crate) fn operations(&self) -> Vec<(String, Duration)> {
        let mut operations: Vec<_> = self
            .entries()
            .operations
            .values()
            .map(|(what, since)| (what.clone(), since.elapsed()))
            .collect();
        operations.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
        operations
    }

    /// How much memory the book itself takes, in KiB.
    pub(crate) fn kib(&self) -> u64 {
        let entries = self.entries();
        let expected = entries.runs.len() * size_of::<Expected>();
        let told = entries.told.capacity() * (size_of::<(u64, Told)>() + 1);
        ((expected + told) / 1024) as u64
    }

    /// Compares how often items ran with how often they may have. The answer is how many runs were
    /// noted.
    pub(crate) fn check_runs(&self, file: &Path, victims: &Victims) -> u64 {
        let notes = fs::read(file).expect("the notes of runs can be read");
        let (expected, endings, told) = {
            let mut entries = self.entries();
            let runs = std::mem::take(&mut entries.runs);
            let endings = std::mem::take(&mut entries.endings);
            (runs, endings, std::mem::take(&mut entries.told))
        };
        let all = || notes.chunks(Note::BYTES).map(Note::read);
        let mut runs = vec![0_u8; expected.len()];
        let mut noted = 0;
        for note in all() {
            let is_right = match note.map(Note::said) {
                Some(Said::Ran(id)) => {
                    noted += 1;
                    let count = usize::try_from(id).ok().and_then(|id| runs.get_mut(id));
                    count
                        .map(|count| *count = count.saturating_add(1))
                        .is_some()
                }
                Some(Said::Beats(id)) => {
                    self.check_beat(note.as_ref(), told.get(&id), victims);
                    usize::try_from(id).is_ok_and(|id| id < expected.len())
                }
                Some(Said::Did(number)) => victims.effects.add_noted(number),
                None => false,
            };
            if !is_right {
                self.violation(&format!(
                    "a note of a run is cut off, or of no item: {note:?}"
                ));
            }
        }
        let (mut ambiguous, mut killed_first) = (0_u64, 0_u64);
        for (id, (expected, count)) in expected.iter().zip(runs).enumerate() {
            let Expected { least, most, .. } = *expected;
            let ending = endings.get(usize::from(expected.ending));
            if most > 0 && ending.is_some_and(|ending| ending.1 == DIED_OR_KILLED) {
                ambiguous += 1;
                killed_first += u64::from(count == 0);
            }
            if most > 0 && count > 1 {
                victims.effects.add(Harm::RunAgain, true);
            }
            if count >= least && count <= most {
                continue;
            }
            let id = id as u64;
            let told = told.get(&id);
            let ran: Vec<Note> = all()
                .flatten()
                .filter(|it| matches!(it.said(), Said::Ran(it) if it == id))
                .collect();
            // What may be tried again may begin once more than the client knows each time that its
            // agent dies in the moment in which it begins, or cannot be reached.
            let unknown = |note: &&Note| victims.agents.may_be_unknown(note.agent, note.at);
            let unknown = ran.iter().filter(unknown).count();
            if count > most && most > 1 && usize::from(count) <= usize::from(most) + unknown {
                continue;
            }
            let mut done: Vec<String> = told
                .iter()
                .map(|told| victims.describe(told.worker))
                .collect();
            let agents = ran.iter().map(|it| it.agent);
            let agents: BTreeSet<_> = agents
                .chain(told.and_then(|it| it.agent))
                .filter(|it| *it != 0)
                .collect();
            done.extend(agents.iter().map(|it| victims.agents.describe(*it)));
            let ran: Vec<_> = ran
                .iter()
                .map(|note| (note.pid, note.agent, note.at))
                .collect();
            let told = told.map_or_else(|| "of no error".into(), Told::to_string);
            self.violation(&format!(
                "item {id} ran {count} times, and not {least} to {most}; its call and outcome: \
                 {ending:?}; it was told {told}; it ran in, at which agent, and when: {ran:?}; \
                 what was done to the worker that was told, and to agents: {done:?}"
            ));
        }
        if ambiguous > 0 {
            println!(
                "{ambiguous} items were to kill workers that the killer has killed, too; \
                 {killed_first} of them had not begun"
            );
        }
        noted
    }

    /// What was lost with its agent does not run any more. (Stop an agent, and its workers do not
    /// know.)
    fn check_beat(&self, note: Option<&Note>, told: Option<&Told>, victims: &Victims) {
        let (Some(note), Some(told)) = (note, told) else {
            return;
        };
        let is_lost = told.error == TaskErrorKind::WorkerLost && told.worker == 0;
        if is_lost
            && told.agent == Some(note.agent)
            && note.at > told.at
            && !victims.agents.was_stopped(note.agent, note.at)
        {
            self.violation(&format!(
                "what was lost goes on at {}, in {}: {told}; {}",
                note.at,
                note.pid,
                victims.agents.describe(note.agent)
            ));
        }
    }

    /// `map 12 ok 3 lost; ...`
    pub(crate) fn summary(&self) -> String {
        let entries = self.entries();
        let mut text = String::new();
        let mut last = "";
        for ((call, outcome), count) in &entries.outcomes {
            if *call != last {
                let separator = if last.is_empty() { "" } else { "; " };
                let _ = write!(text, "{separator}{call}:");
                last = call;
            }
            let _ = write!(text, " {count} {outcome}");
        }
        text
    }

    /// How many items have ended.
    pub(crate) fn items(&self) -> u64 {
        self.entries().outcomes.values().sum()
    }
}

/// See [`Ledger::operation`].
pub(crate) struct Operation<'a> {
    ledger: &'a Ledger,
    number: u64,
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.ledger.entries().operations.remove(&self.number);
        self.ledger.end(1);
    }
}
