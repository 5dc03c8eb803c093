//! What this program can be asked for.

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};
use libtest_mimic::{Arguments, Failed, Trial};
use procpool_testing::nats;

#[cfg(all(feature = "cluster", feature = "spawn"))]
use super::backend::Cluster;
#[cfg(feature = "fork")]
use super::backend::Fork;
use super::backend::Kind;
#[cfg(feature = "spawn")]
use super::backend::Spawn;
use super::{sandbox, soak, storm};

/// Random calls and random deaths, or a long life.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
enum Command {
    /// Random calls by several threads while workers and fork servers are killed and stopped.
    Storm(StormOptions),
    /// Many pools and many tasks, one after the other, with an eye on what the process holds.
    Soak(SoakOptions),
}

/// See [`Command::Storm`].
#[derive(Debug, Clone, Args)]
pub(crate) struct StormOptions {
    /// Only this kind of pool; all of them, side by side, if none is named.
    #[arg(long)]
    backend: Option<Kind>,
    /// How long it blows.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u64,
    /// What everything random follows from; taken from the clock if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many threads make calls.
    #[arg(long, default_value_t = 4)]
    pub(crate) threads: usize,
    /// Nobody is killed or stopped but by tasks.
    #[arg(long)]
    pub(crate) peaceful: bool,
    /// Whether fork servers are killed.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) spare_servers: bool,
    /// Whether tasks have pools of their own.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) nested: bool,
}

/// See [`Command::Soak`].
#[derive(Debug, Clone, Args)]
pub(crate) struct SoakOptions {
    /// Only this kind of pool; all of them, one after the other, if none is named.
    #[arg(long)]
    backend: Option<Kind>,
    /// How many pools are made and dropped.
    #[arg(long, default_value_t = 1000)]
    pub(crate) pools: u64,
    /// How many tasks they run in all.
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) tasks: u64,
}

/// The program.
pub(crate) fn main() -> ExitCode {
    if sandbox::is_inside() {
        sandbox::enter();
        let passed = match Command::parse() {
            Command::Storm(options) => blow(&options),
            Command::Soak(options) => endure(&options),
        };
        return if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    // Anything else is for a test harness.
    let is_command = env::args()
        .nth(1)
        .is_some_and(|first| first == "storm" || first == "soak");
    if !is_command {
        return libtest_mimic::run(&Arguments::from_args(), trials()).exit_code();
    }
    let done = match Command::parse() {
        Command::Storm(options) => storms(&options),
        Command::Soak(options) => soaks(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn blow(options: &StormOptions) -> bool {
    let seed = options.seed.unwrap_or_else(random_seed);
    match options.backend.unwrap_or(Kind::ALL[0]) {
        #[cfg(feature = "fork")]
        Kind::Fork => storm::run::<Fork>(options, seed),
        #[cfg(feature = "spawn")]
        Kind::Spawn => storm::run::<Spawn>(options, seed),
        #[cfg(all(feature = "cluster", feature = "spawn"))]
        Kind::Cluster => storm::run::<Cluster>(options, seed),
    }
}

fn endure(options: &SoakOptions) -> bool {
    match options.backend.unwrap_or(Kind::ALL[0]) {
        #[cfg(feature = "fork")]
        Kind::Fork => soak::run::<Fork>(options),
        #[cfg(feature = "spawn")]
        Kind::Spawn => soak::run::<Spawn>(options),
        #[cfg(all(feature = "cluster", feature = "spawn"))]
        Kind::Cluster => {
            eprintln!("there is no soak for clusters");
            false
        }
    }
}

/// A storm for each kind of pool, side by side.
fn storms(options: &StormOptions) -> Result<(), String> {
    let seed = options.seed.unwrap_or_else(random_seed);
    thread::scope(|scope| {
        let storms: Vec<_> = kinds(options.backend)
            .into_iter()
            .map(|kind| scope.spawn(move || storm_of(kind, seed, options)))
            .collect();
        let done = storms
            .into_iter()
            .map(|storm| storm.join().unwrap_or_else(|_| Err("it panicked".into())));
        let failed: Vec<String> = done.filter_map(Result::err).collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        }
    })
}

fn storm_of(kind: Kind, seed: u64, options: &StormOptions) -> Result<(), String> {
    if kind.is_cluster() && nats::program_or_skip("the storm of a cluster").is_none() {
        return Ok(());
    }
    let mut command = format!(
        "storm --backend {} --seed {seed} --seconds {} --threads {} --spare-servers {} --nested {}",
        kind.name(),
        options.seconds,
        options.threads,
        options.spare_servers,
        options.nested
    );
    if options.peaceful {
        command.push_str(" --peaceful");
    }
    println!("{command}");
    let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
    sandbox::run(&arguments, Duration::from_secs(options.seconds))
        .map_err(|error| format!("{} with seed {seed}: {error}", kind.name()))
}

/// A soak for each kind of pool, one after the other, since each wants the machine for itself.
fn soaks(options: &SoakOptions) -> Result<(), String> {
    let has_soak = |kind: &Kind| options.backend.is_some() || !kind.is_cluster();
    for kind in kinds(options.backend).into_iter().filter(has_soak) {
        soak_of(kind, options)?;
    }
    Ok(())
}

fn soak_of(kind: Kind, options: &SoakOptions) -> Result<(), String> {
    let command = format!(
        "soak --backend {} --pools {} --tasks {}",
        kind.name(),
        options.pools,
        options.tasks
    );
    let arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
    // Generous: so many pools and tasks take even a debug build less.
    let time = Duration::from_millis(options.pools * 100 + options.tasks / 10);
    sandbox::run(&arguments, time).map_err(|error| format!("{}: {error}", kind.name()))
}

fn kinds(one: Option<Kind>) -> Vec<Kind> {
    one.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind])
}

/// A little of everything.
fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for kind in Kind::ALL.iter().copied() {
        trials.push(Trial::test(format!("{}::storm", kind.name()), move || {
            let options = StormOptions {
                backend: None,
                seconds: if kind.is_cluster() { 6 } else { 3 },
                seed: None,
                threads: 4,
                peaceful: false,
                spare_servers: true,
                nested: true,
            };
            storm_of(kind, random_seed(), &options).map_err(Failed::from)
        }));
        if kind.is_cluster() {
            continue;
        }
        trials.push(Trial::test(format!("{}::soak", kind.name()), move || {
            let options = SoakOptions {
                backend: None,
                pools: 25,
                tasks: 50_000,
            };
            soak_of(kind, &options).map_err(Failed::from)
        }));
    }
    trials
}

/// A small number, to be typed again.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| now.as_micros() as u64 % 1_000_000_007)
}
