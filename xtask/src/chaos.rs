//! `cargo xtask chaos` and `cargo xtask soak`: the programs of tests/chaos, as long as one likes.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo;

/// What `cargo xtask chaos` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct ChaosOptions {
    /// How long it lasts.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What everything random follows from; taken from the clock, and printed, if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this kind of pool, `fork`, `spawn` or `cluster`; all, side by side, if none is named.
    #[arg(long)]
    backend: Option<String>,
    /// In a debug build, with its assertions.
    #[arg(long)]
    debug: bool,
    /// More for the program itself; try `--help` after `--`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// What `cargo xtask soak` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// How many pools are made and dropped.
    #[arg(long, default_value_t = 1000)]
    pools: u64,
    /// How many tasks they run in all.
    #[arg(long, default_value_t = 10_000_000)]
    tasks: u64,
    /// Only this kind of pool, `fork` or `spawn`; one after the other, if none is named.
    #[arg(long)]
    backend: Option<String>,
    /// In a debug build, with its assertions.
    #[arg(long)]
    debug: bool,
}

/// Random calls by several threads while workers, fork servers, agents and a server are killed.
///
/// # Errors
/// When something was lost, doubled, hung or left behind; the program has said what.
pub(crate) fn chaos(root: &Path, options: &ChaosOptions) -> Result<()> {
    let mut command = program(root, options.debug);
    command.args(["storm", "--seconds", &options.seconds.to_string()]);
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(backend) = &options.backend {
        command.args(["--backend", backend]);
    }
    run(command.args(&options.arguments))
}

/// Many pools and many tasks, with an eye on what the process holds.
///
/// # Errors
/// When something has grown; the program has said what.
pub(crate) fn soak(root: &Path, options: &SoakOptions) -> Result<()> {
    let mut command = program(root, options.debug);
    command
        .args(["soak", "--pools", &options.pools.to_string()])
        .args(["--tasks", &options.tasks.to_string()]);
    if let Some(backend) = &options.backend {
        command.args(["--backend", backend]);
    }
    run(&mut command)
}

/// The program, to be given its arguments.
pub(crate) fn program(root: &Path, debug: bool) -> Command {
    // Of the whole workspace, so that a debug build is the one that its tests have.
    let profile = if debug { "" } else { "--release" };
    cargo::cargo(
        root,
        &format!("test --quiet --workspace {profile} --test chaos --"),
    )
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cargo cannot be started")?;
    anyhow::ensure!(status.success(), "it failed: {status}");
    Ok(())
}
