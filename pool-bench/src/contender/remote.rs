//! A contender in a program of its own: Python's pools, and ours where a fresh program matters.
//!
//! The other program reads one job per line, as JSON, and answers each with one line. It takes the
//! time and checks the results itself, so that the way to it costs nothing that counts.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::{Contender, Role, Wrong};
use crate::job::{Job, Measured};
use crate::tree;

/// How long a rival may take to its first result, from the start of its program. The slowest of
/// them has it after some seconds. One that cannot start its workers may wait for them forever.
pub const FIRST_RESULT_LIMIT: Duration = Duration::from_secs(60);

/// The program with Python's pools.
pub const PYTHON_SCRIPT: &str = "python/rivals.py";

/// A contender behind a pair of pipes. Dropping it ends its program.
pub struct Remote {
    name: String,
    role: Role,
    program: Program,
    child: Child,
    /// Taken when it is to end: end-of-file is how it is told.
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What it runs in.
#[derive(Clone)]
enum Program {
    /// This program once more.
    This,
    /// A script in an interpreter.
    Script(OsString, PathBuf),
}

impl Remote {
    /// Python's pool called `name`, in this interpreter. If it cannot be imported there, if there
    /// is no such interpreter, or if it has no result within `limit`: why it is left out.
    ///
    /// It is tried in a program of its own, so that no pool is there before it is measured.
    ///
    /// # Errors
    /// When the program starts and then says something that is no answer, or has a wrong result.
    pub fn python(
        interpreter: &OsStr,
        script: &Path,
        name: &str,
        workers: usize,
        limit: Duration,
    ) -> Result<Result<Self, String>> {
        let program = Program::Script(interpreter.to_owned(), script.to_owned());
        let trial = &["--trial"][..];
        let Ok(mut trial) = Self::start(program.clone(), name, Role::Rival, workers, trial) else {
            return Ok(Err(format!("not found: no {}", interpreter.display())));
        };
        let why = match trial.answer_within(limit) {
            Ok(Some(Answer::Ready { .. })) => {
                drop(trial);
                let remote = Self::start(program, name, Role::Rival, workers, &[])?;
                return remote.ready().map(Ok);
            }
            Ok(Some(Answer::Missing { missing })) => missing,
            Ok(None) => format!("no first result within {} s", limit.as_secs_f32()),
            Ok(Some(Answer::Wrong { wrong })) => return Err(Wrong(wrong).into()),
            Ok(Some(answer)) => bail!("{name} begins with {answer:?}"),
            Err(error) => format!("{error:#}"),
        };
        // It may wait for something that does not come.
        trial.kill();
        Ok(Err(why))
    }

    /// This program once more, as the contender called `name` alone.
    ///
    /// # Errors
    /// When it does not start.
    pub fn this_program(name: &str, role: Role, workers: usize) -> Result<Self> {
        Self::start(Program::This, name, role, workers, &[])?.ready()
    }

    /// The process at the root of its processes.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn start(
        program: Program,
        name: &str,
        role: Role,
        workers: usize,
        more: &[&str],
    ) -> Result<Self> {
        let workers = workers.to_string();
        #[expect(clippy::disallowed_methods, reason = "rivals are programs")]
        let mut command = match &program {
            Program::This => Command::new(std::env::current_exe()?),
            Program::Script(interpreter, _) => Command::new(interpreter),
        };
        match &program {
            Program::This => command.args(["serve", "--workers", &workers, name]),
            Program::Script(_, script) => {
                command
                    .arg(script)
                    .args(["--contender", name, "--workers", &workers])
            }
        };
        let mut child = command
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let jobs = child.stdin.take();
        let answers = child.stdout.take().expect("it was asked for");
        Ok(Self {
            name: name.to_owned(),
            role,
            program,
            child,
            jobs,
            answers: BufReader::new(answers),
        })
    }

    fn ready(mut self) -> Result<Self> {
        match self.answer()? {
            Answer::Ready { .. } => Ok(self),
            answer => bail!("{} begins with {answer:?}", self.name),
        }
    }

    /// The first answer. `None`: it does not come within `limit`.
    fn answer_within(&mut self, limit: Duration) -> Result<Option<Answer>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // An answer is written at once, so what begins to come is all there.
            let mut pipe = [PollFd::new(self.answers.get_ref(), PollFlags::IN)];
            match poll(&mut pipe, Some(&left.try_into()?)) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.answer().map(Some),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends its program, and all that it has started, at once.
    fn kill(&mut self) {
        for process in tree::below(self.process()) {
            let process = i32::try_from(process).ok().and_then(Pid::from_raw);
            // An error means that it has ended by itself.
            let _ = process.map(|process| kill_process(process, Signal::KILL));
        }
        let _ = self.child.kill();
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        parse(&line).with_context(|| format!("{} answers {line:?}", self.name))
    }
}

impl Contender for Remote {
    fn name(&self) -> &str {
        &self.name
    }

    fn role(&self) -> Role {
        self.role
    }

    fn run(&mut self, job: Job) -> Result<Option<Measured>> {
        let mut line = serde_json::to_string(&job)?;
        line.push('\n');
        let jobs = self.jobs.as_mut().expect("it is open until the end");
        jobs.write_all(line.as_bytes())
            .with_context(|| format!("{} is gone", self.name))?;
        match self.answer()? {
            Answer::Measured(measured) => Ok(Some(measured)),
            Answer::Unsupported { .. } => Ok(None),
            Answer::Wrong { wrong } => Err(Wrong(wrong).into()),
            Answer::Failed { error } => Err(anyhow!("{error}")),
            answer @ (Answer::Ready { .. } | Answer::Missing { .. }) => {
                bail!("{} answers {answer:?} to a job", self.name)
            }
        }
    }

    fn fresh(&self, workers: usize) -> Result<Self> {
        Self::start(self.program.clone(), &self.name, self.role, workers, &[])?.ready()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // An error means that it was collected already.
        let _ = self.child.wait();
    }
}

/// One line from the other program.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Answer {
    Measured(Measured),
    Ready { ready: String },
    Missing { missing: String },
    Unsupported { unsupported: String },
    Wrong { wrong: String },
    Failed { error: String },
}

fn parse(line: &str) -> Result<Answer> {
    if line.is_empty() {
        bail!("it has ended without an answer");
    }
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_understood() {
        let parsed = |line: &str| parse(line).expect("it is an answer");
        let measured = Measured {
            value: 1.5e-6,
            n: 10,
        };
        assert_eq!(
            parsed("{\"value\": 1.5e-06, \"n\": 10}\n"),
            Answer::Measured(measured)
        );
        let text = |text: &str| text.to_owned();
        assert_eq!(
            parsed(r#"{"ready": "loky 3.4"}"#),
            Answer::Ready {
                ready: text("loky 3.4")
            }
        );
        assert_eq!(
            parsed(r#"{"missing": "loky"}"#),
            Answer::Missing {
                missing: text("loky")
            }
        );
        assert_eq!(
            parsed(r#"{"unsupported": "imap"}"#),
            Answer::Unsupported {
                unsupported: text("imap")
            }
        );
        assert_eq!(
            parsed(r#"{"wrong": "3 * 3 = 10"}"#),
            Answer::Wrong {
                wrong: text("3 * 3 = 10")
            }
        );
        assert_eq!(
            parsed(r#"{"error": "OSError"}"#),
            Answer::Failed {
                error: text("OSError")
            }
        );
    }

    /// With a shell for an interpreter, each script does what a rival may do.
    #[test]
    fn a_rival_without_a_first_result_is_left_out() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let script = folder.path().join("rival");
        let left_out = |shell: &str, text: &str, limit: Duration| {
            std::fs::write(&script, text).expect("it is ours");
            Remote::python(shell.as_ref(), &script, "it", 2, limit)
                .map(|outcome| outcome.err().expect("it cannot be measured"))
        };
        let minute = Duration::from_secs(60);

        let begin = Instant::now();
        let why = left_out("sh", "sleep 600 & wait", Duration::from_millis(300));
        assert_eq!(
            why.expect("it says nothing"),
            "no first result within 0.3 s"
        );
        assert!(begin.elapsed() < minute, "it waits");

        // What it says is enough: it need not end.
        let text = "echo '{\"missing\": \"MPI_ERR_SPAWN\"}'; sleep 600";
        let why = left_out("sh", text, minute).expect("it says why");
        assert_eq!(why, "MPI_ERR_SPAWN");
        assert!(begin.elapsed() < minute, "it waits");

        let why = left_out("sh", "exit 3", minute).expect("it says nothing");
        assert!(why.contains("ended without an answer"), "{why}");
        let why = left_out("no-such-shell", "", minute).expect("it says nothing");
        assert_eq!(why, "not found: no no-such-shell");

        let error = left_out("sh", "echo '{\"wrong\": \"3 * 3 = 10\"}'", minute);
        assert!(error.expect_err("it lies").is::<Wrong>());
    }

    #[test]
    fn an_end_or_rubbish_is_no_answer() {
        assert!(parse("").is_err());
        assert!(parse("Traceback (most recent call last):\n").is_err());
        assert!(parse("{\"value\": \"fast\"}\n").is_err());
    }

    #[test]
    fn a_job_is_one_line_of_flat_json() {
        let job = Job::Echo {
            n: 2,
            bytes: 16,
            floats: true,
        };
        let line = serde_json::to_string(&job).expect("a job has a form");
        assert_eq!(line, r#"{"job":"echo","n":2,"bytes":16,"floats":true}"#);
        let line = serde_json::to_string(&Job::ApplyAfterSleep { n: 1, pause_us: 5 });
        assert_eq!(
            line.expect("a job has a form"),
            r#"{"job":"apply_after_sleep","n":1,"pause_us":5}"#
        );
    }
}
