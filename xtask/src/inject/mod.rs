//! `cargo xtask inject`: a pool of each kind while single system calls fail.
//!
//! `strace` lets them fail, in one thread after the other at the same time of asking: the third
//! `epoll_ctl` of each, say, or that and all later ones. What runs is the scenario of
//! tests/syscalls, which does a little of everything and says how each step ended.

mod faults;
mod report;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tempfile::TempDir;
use tinyjson::JsonValue;

use self::faults::{Expected, FAULTS, Fault};
use crate::{cargo, processes, watchdog};

/// For a build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// For one run of the scenario, which takes a second. It waits for ten where it waits for an end.
const RUN_LIMIT: Duration = Duration::from_secs(30);

/// How often a run is made at most in which strace itself fails.
const TRIES: u32 = 3;

/// At most this many times of failing are tried of each call and error, spread over all that there
/// are.
const TIMES: u32 = 12;

/// This many of the calls that failed are shown.
const SHOWN: usize = 20;

const BACKENDS: &[&str] = &["fork", "spawn"];

/// What `cargo xtask inject` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only this kind of pool, `fork` or `spawn`.
    #[arg(long)]
    backend: Option<String>,
    /// Only faults of these calls, as the list in xtask/src/inject/faults.rs has them.
    #[arg(long)]
    calls: Option<String>,
    /// Only this error.
    #[arg(long)]
    error: Option<String>,
    /// Only these times of asking, separated by commas: `3` for the third alone, `3+` for all from
    /// then on.
    #[arg(long)]
    when: Option<String>,
    /// Try as many as this time allows, in an order that follows from the seed; all, if it is not
    /// given.
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the errors of runs that end as expected, too: what does each of them name?
    #[arg(long)]
    errors: bool,
    /// What the order follows from; taken from the clock, and printed, if it is not given.
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    /// As much as CI does: the same each time, so that a failure is the change's.
    pub(crate) fn short() -> Self {
        Self {
            backend: None,
            calls: None,
            error: None,
            when: Some("1,1+".to_owned()),
            seconds: None,
            errors: false,
            seed: None,
        }
    }
}

/// One run: the calls fail with this error, in a pool of this kind.
#[derive(Debug, Clone)]
struct Injection {
    backend: &'static str,
    calls: &'static str,
    error: &'static str,
    when: When,
}

impl Injection {
    /// What asks for this run alone.
    fn asked(&self) -> String {
        let Self {
            backend,
            calls,
            error,
            when,
        } = self;
        let when = when.text();
        format!("--backend {backend} --calls {calls} --error {error} --when {when}")
    }
}

/// The time of asking, counted in each thread from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct When {
    first: u32,
    and_later: bool,
}

impl When {
    fn parse(text: &str) -> Result<Self> {
        let (first, and_later) = match text.strip_suffix('+') {
            Some(first) => (first, true),
            None => (text, false),
        };
        let first = first
            .parse()
            .with_context(|| format!("{text:?} is no time"))?;
        Ok(Self { first, and_later })
    }

    fn text(self) -> String {
        let plus = if self.and_later { "+" } else { "" };
        format!("{}{plus}", self.first)
    }
}

/// Runs the scenario with one fault after the other.
///
/// # Errors
/// When a run hangs, leaves something or ends otherwise than expected; when there is no strace and
/// it cannot be installed.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    processes::adopt_orphans()?;
    install_strace()?;
    let program = build(root)?;
    let seed = options.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64)
    });
    let mut plan = Vec::new();
    for &backend in BACKENDS {
        if options
            .backend
            .as_deref()
            .is_none_or(|only| only == backend)
        {
            let counts = count(&program, backend)?;
            plan.extend(injections(options, backend, &counts)?);
        }
    }
    ensure!(!plan.is_empty(), "there is no such fault");
    let end = options.seconds.map(|seconds| {
        shuffle(&mut plan, seed);
        Instant::now() + Duration::from_secs(seconds)
    });
    let all = plan.len();
    println!("{all} runs, seed {seed}");
    let (mut done, mut failures) = (0, Vec::new());
    for injection in plan {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        done += 1;
        match try_one(&program, &injection) {
            Ok(said) if options.errors => {
                for line in report::errors(&said) {
                    println!("{}\n    {line}", injection.asked());
                }
            }
            Ok(_) => {}
            Err(error) => {
                let asked = injection.asked();
                println!("{asked}\n{error:#}\n");
                failures.push(asked);
            }
        }
    }
    println!("{done} of {all} runs were made");
    if !failures.is_empty() {
        bail!(
            "{} of {done} runs ended otherwise than expected; each can be repeated:\n\
             cargo xtask inject {}",
            failures.len(),
            failures.join("\ncargo xtask inject ")
        );
    }
    Ok(())
}

/// Sees to it that there is a strace.
fn install_strace() -> Result<()> {
    let works = || {
        let version = Command::new("strace")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    };
    if works() {
        return Ok(());
    }
    for arguments in [&["update"][..], &["install", "-y", "strace"]] {
        // Whether that was of use, is seen below.
        let _ = Command::new("apt-get").args(arguments).status();
    }
    ensure!(
        works(),
        "there is no strace, and apt-get cannot install it: install it (as root) and try again"
    );
    Ok(())
}

/// Builds the scenario, and says where its program is.
fn build(root: &Path) -> Result<PathBuf> {
    let arguments = "test --package procpool-tests --test syscalls --no-run";
    // First as one sees it, then for its answer.
    watchdog::run(cargo::cargo(root, arguments), BUILD_LIMIT)?;
    let mut command = cargo::cargo(root, arguments);
    let output = command
        .arg("--message-format=json")
        .stderr(Stdio::null())
        .output()?;
    let program = String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| {
            let message: JsonValue = line.parse().ok()?;
            let of = |value: &JsonValue, key: &str| -> Option<JsonValue> {
                value.get::<HashMap<String, JsonValue>>()?.get(key).cloned()
            };
            let name: String = of(&of(&message, "target")?, "name")?.try_into().ok()?;
            let executable: String = of(&message, "executable")?.try_into().ok()?;
            (name == "syscalls").then(|| PathBuf::from(executable))
        });
    program.context("cargo does not say where the test `syscalls` is")
}

/// How often the thread that makes it most often makes each call, if nothing fails.
fn count(program: &Path, backend: &str) -> Result<HashMap<String, u32>> {
    let place = TempDir::new()?;
    let log = place.path().join("log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(&log);
    let said = scenario(command, program, backend, &place)?;
    report::check(&said, Expected::Right).context("nothing failed")?;
    let mut by_thread: HashMap<(String, String), u32> = HashMap::new();
    for line in fs::read_to_string(&log)?.lines() {
        // 4711 call(arguments) = result
        let mut words = line.splitn(2, ' ');
        let (Some(thread), Some(rest)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some((call, _)) = rest.trim_start().split_once('(')
            && call
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            *by_thread
                .entry((thread.to_owned(), call.to_owned()))
                .or_default() += 1;
        }
    }
    let mut most: HashMap<String, u32> = HashMap::new();
    for ((_, call), count) in by_thread {
        let known = most.entry(call).or_default();
        *known = count.max(*known);
    }
    Ok(most)
}

/// What is to be tried with this kind of pool.
fn injections(
    options: &Options,
    backend: &'static str,
    counts: &HashMap<String, u32>,
) -> Result<Vec<Injection>> {
    let mut plan = Vec::new();
    for Fault { calls, errors } in FAULTS {
        if options.calls.as_deref().is_some_and(|only| only != *calls) {
            continue;
        }
        let count = calls.split(',').filter_map(|call| counts.get(call)).max();
        let times = match &options.when {
            Some(times) => times.split(',').map(When::parse).collect::<Result<_>>()?,
            None => times(count.copied().unwrap_or(0)),
        };
        for error in *errors {
            if options.error.as_deref().is_none_or(|only| only == *error) {
                // Signals do not come so often that a call never gets done.
                let passes = *error == "EINTR";
                let times = times.iter().filter(|when| !when.and_later || !passes);
                plan.extend(times.map(|&when| Injection {
                    backend,
                    calls,
                    error,
                    when,
                }));
            }
        }
    }
    Ok(plan)
}

/// When something can fail that is done so often.
fn times(count: u32) -> Vec<When> {
    let tried = count.min(TIMES);
    // All of the first ones, then ever fewer.
    let mut firsts: Vec<u32> = (1..=tried)
        .map(|nth| {
            let last = u64::from(count.saturating_sub(tried));
            let share = last * u64::from(nth).pow(2) / u64::from(tried).pow(2);
            nth + u32::try_from(share).unwrap_or(0)
        })
        .collect();
    firsts.dedup();
    let once = firsts.iter().map(|&first| (first, false));
    let from_then_on = firsts.iter().step_by(3).map(|&first| (first, true));
    once.chain(from_then_on)
        .map(|(first, and_later)| When { first, and_later })
        .collect()
}

/// Puts them into an order that follows from the seed.
fn shuffle(plan: &mut [Injection], seed: u64) {
    let mut state = seed | 1;
    for end in (1..plan.len()).rev() {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        plan.swap(end, (state % (end as u64 + 1)) as usize);
    }
}

fn try_one(program: &Path, injection: &Injection) -> Result<String> {
    for _ in 1..TRIES {
        match try_once(program, injection) {
            Err(error) if report::is_tracers(&format!("{error:#}")) => {}
            outcome => return outcome,
        }
    }
    try_once(program, injection)
}

fn try_once(program: &Path, injection: &Injection) -> Result<String> {
    let Injection {
        backend,
        calls,
        error,
        when,
    } = injection;
    let since = if when.and_later { when.first } else { 0 };
    let expected = faults::expected(backend, calls, error, since);
    let place = TempDir::new()?;
    let log = place.path().join("log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o"])
        .arg(&log)
        .args(["-e", &format!("trace={calls}"), "-e"])
        .arg(format!("inject={calls}:error={error}:when={}", when.text()));
    let said = scenario(command, program, backend, &place)
        .and_then(|said| report::check(&said, expected).map(|()| said));
    let error = match said {
        Ok(said) => return Ok(said),
        Err(error) => error,
    };
    let log = fs::read_to_string(&log).unwrap_or_default();
    let injected = log.lines().filter(|line| line.contains("INJECTED"));
    let injected: Vec<&str> = injected.take(SHOWN).collect();
    Err(error.context(format!("what failed:\n{}", injected.join("\n"))))
}

/// Runs the scenario under this strace and says what it said.
fn scenario(
    mut command: Command,
    program: &Path,
    backend: &str,
    place: &TempDir,
) -> Result<String> {
    let (temporary, said) = (place.path().join("temporary"), place.path().join("said"));
    fs::create_dir(&temporary)?;
    let output = File::create(&said)?;
    command
        .arg(program)
        .args(["scenario", backend])
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let ended = watchdog::watch(command, "the scenario", RUN_LIMIT);
    let said = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
    // Its exit code is in what it says, and a program that could not even begin has none of ours.
    if !report::has_hit_others(&said) {
        ended.with_context(|| said.clone())?;
    }
    let left: Vec<_> = fs::read_dir(&temporary)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    ensure!(left.is_empty(), "{said}\nfiles are left: {left:?}");
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_the_first_ones_and_some_later_ones() {
        let once = |count| -> Vec<u32> {
            let times = times(count);
            let once = times.iter().filter(|when| !when.and_later);
            once.map(|when| when.first).collect()
        };
        assert_eq!(once(0), []);
        assert_eq!(once(3), [1, 2, 3]);
        let many = once(1000);
        assert_eq!((many.len(), many[11]), (12, 1000));
        assert!(many.is_sorted());
        assert!(times(3).contains(&When {
            first: 1,
            and_later: true
        }));
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for text in ["1", "17+"] {
            assert_eq!(When::parse(text).expect("a time").text(), text);
        }
        assert!(When::parse("").is_err() && When::parse("+").is_err());
    }

    #[test]
    fn an_order_follows_from_its_seed() {
        let plan: Vec<Injection> = (0..50)
            .map(|first| Injection {
                backend: "fork",
                calls: "pipe2",
                error: "EMFILE",
                when: When {
                    first,
                    and_later: false,
                },
            })
            .collect();
        let order = |seed| {
            let mut plan = plan.clone();
            shuffle(&mut plan, seed);
            plan.iter()
                .map(|injection| injection.when.first)
                .collect::<Vec<_>>()
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut all = order(7);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..50));
    }
}
