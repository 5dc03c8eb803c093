//! Runs everybody in turn, round after round.

#![allow(
    clippy::disallowed_methods,
    reason = "what is measured is also what comes after a sleep"
)]

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::contender::{Contender, Remote, Role, Wrong};
use crate::curve::{Axis, Curve};
use crate::job::{Job, Measured};
use crate::machine::available_memory;
use crate::record::Record;
use crate::roster::floors_of_programs;
use crate::scale::Scale;
use crate::statistics::{Summary, rounded};
use crate::tree;
use crate::workload::{Unit, Workload};

/// Those rivals that also run the curves, and in quick runs: the one in Rust and the usual ones.
const USUAL_RIVALS: &[&str] = &["procspawn", "mp.Pool fork", "ProcessPoolExecutor"];

/// How often a point of a curve is measured, at most.
const CURVE_ROUNDS: usize = 3;

/// A comparison that is under way.
pub struct Session {
    /// Who takes part.
    pub contenders: Vec<Box<dyn Contender>>,
    /// How much work there is.
    pub scale: Scale,
    /// How often everything is measured.
    pub rounds: usize,
    /// How many workers pools have where nothing else is said.
    pub workers: usize,
    /// What was measured so far.
    pub records: Vec<Record>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// One contender at one job.
struct Cell {
    contender: usize,
    job: Job,
    n: u64,
    samples: Vec<f64>,
    spent: Duration,
}

impl Session {
    /// Measures one workload.
    ///
    /// # Errors
    /// When a result is wrong, or a pool of ours fails.
    pub fn workload(&mut self, workload: &Workload) -> Result<()> {
        let (scale, workers) = (self.scale, self.workers as u64);
        if workload.fresh {
            return self.in_programs_of_their_own(workload);
        }
        let cells = self.cells(|contender| (workload.job)(contender.role(), scale, workers));
        let cells = self.rounds(cells, self.rounds)?;
        self.keep(workload.key, None, workload.unit, cells);
        Ok(())
    }

    /// Measures one curve, point by point.
    ///
    /// # Errors
    /// When a result is wrong, or a pool of ours fails.
    pub fn curve(&mut self, curve: &Curve) -> Result<()> {
        for &size in (curve.sizes)(self.scale) {
            let (needed, available) = ((curve.memory)(size), available_memory());
            if needed > available / 2 {
                self.notes.push(format!(
                    "{} at {size} was skipped: it needs {} MiB, more than half of the {} MiB available",
                    curve.key,
                    needed >> 20,
                    available >> 20,
                ));
                continue;
            }
            match curve.axis {
                Axis::Resident => self.resident_point(curve, size)?,
                Axis::Workers => self.workers_point(curve, size)?,
                Axis::Items | Axis::Bytes | Axis::Threads => {
                    let cells = self.curve_cells(curve, size);
                    let cells = self.rounds(cells, self.rounds.min(CURVE_ROUNDS))?;
                    self.keep(curve.key, Some(size), curve.unit, cells);
                }
            }
        }
        Ok(())
    }

    /// Looks at pools that have nothing to do, from outside and all at the same time: how often
    /// anybody of theirs ran within so many seconds, and how much memory each worker has for itself
    /// alone.
    ///
    /// # Errors
    /// When a pool of ours cannot be built or fails.
    pub fn idle(&mut self, duration: Duration) -> Result<()> {
        let mut watched = Vec::new();
        for index in 0..self.contenders.len() {
            if matches!(self.contenders[index].role(), Role::Ours | Role::Rival) {
                watched.extend(self.fresh(&mut Cell::new(index, Job::Hold))?);
            }
        }
        // A thread that still spins or naps goes to sleep.
        std::thread::sleep(Duration::from_secs(1));
        let before: Vec<_> = watched
            .iter()
            .map(|remote| tree::context_switches(remote.process()))
            .collect();
        std::thread::sleep(duration);
        for (remote, before) in watched.into_iter().zip(before) {
            let (name, role, process) = (remote.name().to_owned(), remote.role(), remote.process());
            let after = tree::context_switches(process);
            let switches: u64 = after
                .iter()
                .map(|(thread, count)| {
                    count.saturating_sub(before.get(thread).copied().unwrap_or(0))
                })
                .sum();
            let memory: Vec<f64> = tree::leaves(process)
                .into_iter()
                .filter_map(tree::private_bytes)
                .map(|bytes| bytes as f64)
                .collect();
            let n = memory.len() as u64;
            self.push(
                "idle-switches",
                None,
                Unit::Count,
                name.clone(),
                role,
                n,
                vec![switches as f64],
            );
            self.push("idle-memory", None, Unit::Bytes, name, role, n, memory);
        }
        Ok(())
    }

    fn who(&self, index: usize) -> (String, Role) {
        let contender = &self.contenders[index];
        (contender.name().to_owned(), contender.role())
    }

    fn cells(&self, job: impl Fn(&dyn Contender) -> Option<Job>) -> Vec<Cell> {
        let contenders = self.contenders.iter().enumerate();
        contenders
            .filter_map(|(contender, who)| Some(Cell::new(contender, job(who.as_ref())?)))
            .collect()
    }

    fn curve_cells(&self, curve: &Curve, size: u64) -> Vec<Cell> {
        self.cells(|contender| {
            takes_part(contender.name(), contender.role())
                .then(|| (curve.job)(contender.role(), size))?
        })
    }

    /// Each cell once per round. Who begins changes, so that nobody always runs after the same
    /// other.
    fn rounds(&mut self, mut cells: Vec<Cell>, rounds: usize) -> Result<Vec<Cell>> {
        let budget = self.scale.pick(4.0, 1.0, 0.0);
        let mut supported = Vec::new();
        for mut cell in cells.drain(..) {
            let begin = Instant::now();
            let warm = match cell.job.warm_up() {
                Some(job) => self.run(&mut cell, job)?,
                None => Some(()),
            };
            if warm.is_some() {
                cell.spent = begin.elapsed();
                cell.samples.clear();
                supported.push(cell);
            }
        }
        for round in 0..rounds {
            let count = supported.len();
            for index in 0..count {
                let cell = &mut supported[(index + round) % count];
                // A slow one has fewer rounds; the number of its samples tells.
                if round > 0 && (cell.samples.is_empty() || cell.spent.as_secs_f64() > budget) {
                    continue;
                }
                let begin = Instant::now();
                let job = cell.job;
                self.run(cell, job)?;
                cell.spent += begin.elapsed();
            }
        }
        Ok(supported)
    }

    /// One sample. `None`: there is none, because it has no such thing or failed.
    fn run(&mut self, cell: &mut Cell, job: Job) -> Result<Option<()>> {
        let contender = &mut self.contenders[cell.contender];
        let (name, role) = (contender.name().to_owned(), contender.role());
        let outcome = contender.run(job);
        self.take(outcome, &name, role, cell)
    }

    fn take(
        &mut self,
        outcome: Result<Option<Measured>>,
        name: &str,
        role: Role,
        cell: &mut Cell,
    ) -> Result<Option<()>> {
        match outcome {
            Ok(Some(measured)) => {
                cell.samples.push(measured.value);
                cell.n = measured.n;
                Ok(Some(()))
            }
            Ok(None) => Ok(None),
            Err(error) if role != Role::Rival || error.is::<Wrong>() => {
                Err(error.context(format!("{name}, {:?}", cell.job)))
            }
            Err(error) => {
                // A rival that fails ends nobody's run but its own.
                let note = format!("{name} failed at {:?}: {error:#}", cell.job);
                eprintln!("{note}");
                self.notes.push(note);
                Ok(None)
            }
        }
    }

    /// In programs of their own, each of which measures once.
    fn in_programs_of_their_own(&mut self, workload: &Workload) -> Result<()> {
        let (scale, workers) = (self.scale, self.workers as u64);
        let mut cells = self.cells(|contender| (workload.job)(contender.role(), scale, workers));
        for _ in 0..self.rounds.min(CURVE_ROUNDS) {
            for cell in &mut cells {
                self.fresh(cell)?;
            }
        }
        self.keep(workload.key, None, workload.unit, cells);
        Ok(())
    }

    /// One sample in a program of its own, which goes on until it is dropped. `None`: it failed.
    fn fresh(&mut self, cell: &mut Cell) -> Result<Option<Remote>> {
        let (name, role) = self.who(cell.contender);
        let (outcome, remote) = match self.contenders[cell.contender].fresh(self.workers) {
            Ok(mut remote) => (remote.run(cell.job), Some(remote)),
            Err(error) => (Err(error), None),
        };
        let taken = self.take(outcome, &name, role, cell)?;
        Ok(remote.filter(|_| taken.is_some()))
    }

    fn workers_point(&mut self, curve: &Curve, size: u64) -> Result<()> {
        let cells = self.curve_cells(curve, size);
        let rebuilt: Vec<usize> = match cells.first().map(|cell| cell.job) {
            // It builds its own.
            Some(Job::Start { .. }) | None => Vec::new(),
            _ => cells.iter().map(|cell| cell.contender).collect(),
        };
        for &index in &rebuilt {
            self.contenders[index].run(Job::Workers { workers: size })?;
        }
        let cells = self.rounds(cells, self.rounds.min(CURVE_ROUNDS))?;
        self.keep(curve.key, Some(size), curve.unit, cells);
        for &index in &rebuilt {
            let workers = self.workers as u64;
            self.contenders[index].run(Job::Workers { workers })?;
        }
        Ok(())
    }

    /// In programs of their own, for it is their memory that grows.
    fn resident_point(&mut self, curve: &Curve, size: u64) -> Result<()> {
        let mut cells: Vec<(Remote, Cell)> = Vec::new();
        for (name, role) in floors_of_programs() {
            if let Some(job) = (curve.job)(role, size) {
                let remote = Remote::this_program(&name, role, self.workers)?;
                cells.push((remote, Cell::new(0, job)));
            }
        }
        for contender in &self.contenders {
            let (name, role) = (contender.name(), contender.role());
            let wanted = matches!(role, Role::Ours | Role::Rival) && takes_part(name, role);
            if let Some(job) = (curve.job)(role, size).filter(|_| wanted) {
                cells.push((contender.fresh(self.workers)?, Cell::new(0, job)));
            }
        }
        for _ in 0..self.rounds.min(CURVE_ROUNDS) {
            for (remote, cell) in &mut cells {
                let outcome = remote.run(cell.job);
                self.take(outcome, remote.name(), remote.role(), cell)?;
            }
        }
        for (remote, cell) in cells {
            let (name, role) = (remote.name().to_owned(), remote.role());
            self.push(
                curve.key,
                Some(size),
                curve.unit,
                name,
                role,
                cell.n,
                cell.samples,
            );
        }
        Ok(())
    }

    fn keep(&mut self, workload: &str, size: Option<u64>, unit: Unit, cells: Vec<Cell>) {
        for cell in cells {
            let (name, role) = self.who(cell.contender);
            self.push(workload, size, unit, name, role, cell.n, cell.samples);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of a record")]
    fn push(
        &mut self,
        workload: &str,
        size: Option<u64>,
        unit: Unit,
        contender: String,
        role: Role,
        n: u64,
        samples: Vec<f64>,
    ) {
        let samples: Vec<f64> = samples.into_iter().map(rounded).collect();
        // Without samples it has no such thing.
        if let Some(summary) = Summary::of(&samples) {
            self.records.push(Record {
                workload: workload.to_owned(),
                size,
                contender,
                role,
                unit,
                n,
                samples,
                summary,
            });
        }
    }
}

impl Cell {
    fn new(contender: usize, job: Job) -> Self {
        Self {
            contender,
            job,
            n: job.items(),
            samples: Vec::new(),
            spent: Duration::ZERO,
        }
    }
}

fn takes_part(name: &str, role: Role) -> bool {
    match role {
        Role::Rival => is_usual(name),
        _ => name != "SerialPool",
    }
}

/// Whether this rival is one of those that most people use.
#[must_use]
pub fn is_usual(name: &str) -> bool {
    USUAL_RIVALS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WORKLOADS;
    use anyhow::bail;
    use std::cell::RefCell;
    use std::rc::Rc;

    type Answer = fn(Job) -> Result<Option<Measured>>;
    type Log = Rc<RefCell<Vec<&'static str>>>;

    /// Answers with what it is told to, and keeps a log of who was asked.
    struct Puppet {
        name: &'static str,
        role: Role,
        answer: Answer,
        log: Log,
    }

    impl Contender for Puppet {
        fn name(&self) -> &str {
            self.name
        }

        fn role(&self) -> Role {
            self.role
        }

        fn run(&mut self, job: Job) -> Result<Option<Measured>> {
            self.log.borrow_mut().push(self.name);
            (self.answer)(job)
        }
    }

    fn session(puppets: &[(&'static str, Role, Answer)]) -> (Session, Log) {
        let log = Log::default();
        let contenders = puppets.iter().map(|&(name, role, answer)| {
            let log = Rc::clone(&log);
            Box::new(Puppet {
                name,
                role,
                answer,
                log,
            }) as Box<dyn Contender>
        });
        let session = Session {
            contenders: contenders.collect(),
            scale: Scale::Quick,
            rounds: 3,
            workers: 2,
            records: Vec::new(),
            notes: Vec::new(),
        };
        (session, log)
    }

    fn fine(job: Job) -> Result<Option<Measured>> {
        let n = job.items();
        Ok(Some(Measured { value: 0.25, n }))
    }

    fn apply() -> &'static Workload {
        let mut all = WORKLOADS.iter();
        all.find(|workload| workload.key == "apply")
            .expect("there is apply")
    }

    #[test]
    fn everybody_runs_in_turns_and_not_always_in_the_same_order() {
        let (mut session, log) = session(&[
            ("a", Role::Floor, fine),
            ("b", Role::Ours, fine),
            ("c", Role::Rival, fine),
        ]);
        session.workload(apply()).expect("nobody fails");
        let log = log.borrow();
        // The warm-up comes first.
        assert_eq!(log[3..], ["a", "b", "c", "b", "c", "a", "c", "a", "b"]);
        assert_eq!(session.records.len(), 3);
        assert_eq!(session.records[1].samples, [0.25; 3]);
        assert_eq!(session.records[1].n, 5_000);
    }

    #[test]
    fn a_wrong_result_ends_the_run_whosever_it_is() {
        let wrong = |_| bail!(Wrong("3 * 3 = 10".to_owned()));
        let (mut session, _) = session(&[("a", Role::Ours, fine), ("b", Role::Rival, wrong)]);
        let error = session.workload(apply()).expect_err("it is wrong");
        assert!(format!("{error:#}").contains("3 * 3 = 10"), "{error:#}");
    }

    #[test]
    fn a_rival_that_fails_is_noted_but_ours_must_not() {
        let fails = |_| bail!("out of descriptors");
        let (mut session_, _) = session(&[("a", Role::Ours, fine), ("b", Role::Rival, fails)]);
        session_.workload(apply()).expect("ours did not fail");
        assert_eq!(session_.records.len(), 1);
        assert!(
            session_.notes[0].contains("out of descriptors"),
            "{:?}",
            session_.notes
        );
        let (mut session, _) = session(&[("a", Role::Ours, fails)]);
        assert!(session.workload(apply()).is_err());
    }

    #[test]
    fn who_has_no_such_thing_is_asked_once() {
        let (mut session, log) = session(&[("a", Role::Rival, |_| Ok(None))]);
        session.workload(apply()).expect("nobody fails");
        assert_eq!(log.borrow().len(), 1);
        assert_eq!(session.records, []);
    }
}
