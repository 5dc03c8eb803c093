//! Runs the steps one after the other and reports how it went.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::steps::{STEPS, Setting, Step};
use crate::processes;

/// What `cargo xtask ci` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run the remaining steps even if one has failed.
    #[arg(long)]
    keep_going: bool,
    /// Run only these steps; all of them if none is named.
    #[arg(value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    steps: Vec<String>,
}

/// How a step ended.
struct Outcome {
    step: &'static str,
    seconds: f64,
    error: Option<anyhow::Error>,
}

/// Runs the steps.
///
/// # Errors
/// When one of them fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    processes::adopt_orphans()?;
    refuse_core_dumps()?;
    let setting = Setting::new(root)?;
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| options.steps.is_empty() || options.steps.iter().any(|s| s == step.name))
        .collect();

    let begin = Instant::now();
    let mut outcomes = Vec::new();
    for (number, step) in chosen.iter().enumerate() {
        println!(
            "\n=== {}/{} {}: {} ===",
            number + 1,
            chosen.len(),
            step.name,
            step.purpose
        );
        let outcome = run_step(step, &setting);
        let failed = outcome.error.is_some();
        outcomes.push(outcome);
        if failed && !options.keep_going {
            break;
        }
    }
    summarise(&outcomes, chosen.len(), begin)
}

fn run_step(step: &Step, setting: &Setting) -> Outcome {
    let begin = Instant::now();
    let error = (step.run)(setting).err();
    let seconds = begin.elapsed().as_secs_f64();
    match &error {
        None => println!("=== {}: passed in {seconds:.1} s ===", step.name),
        Some(error) => println!(
            "=== {}: FAILED after {seconds:.1} s: {error:#} ===",
            step.name
        ),
    }
    Outcome {
        step: step.name,
        seconds,
        error,
    }
}

fn summarise(outcomes: &[Outcome], chosen: usize, begin: Instant) -> Result<()> {
    println!();
    for outcome in outcomes {
        let result = outcome.error.as_ref().map_or("passed", |_| "FAILED");
        println!("{:<10} {:>7.1} s  {result}", outcome.step, outcome.seconds);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.error.is_some())
        .map(|outcome| outcome.step)
        .collect();
    if !failed.is_empty() {
        let skipped = match chosen - outcomes.len() {
            0 => String::new(),
            count => format!("; steps not run: {count}"),
        };
        bail!(
            "ci failed in {} after {seconds:.1} s{skipped}",
            failed.join(", ")
        );
    }
    println!("ci passed: {chosen} steps in {seconds:.1} s");
    Ok(())
}

/// Tests crash on purpose, hundreds of times; each would leave the memory of a process on disk.
fn refuse_core_dumps() -> Result<()> {
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    Ok(setrlimit(Resource::Core, limit)?)
}
