//! What one would otherwise do by hand in this workspace: `cargo xtask` and a command, see
//! `--help`.
//!
//! Programs are started through `std::process::Command`, not through a shell-like crate: a step
//! that hangs must be seen, its processes asked for their stacks, and killed, for which the
//! process itself is needed.
#![allow(
    clippy::disallowed_methods,
    reason = "starting programs is what xtask is for"
)]

mod arm;
mod cargo;
mod chaos;
mod ci;
mod fuzz;
mod inject;
mod model;
mod portable;
mod processes;
mod sanitize;
mod stacks;
mod tidy;
mod watchdog;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

/// The workspace's own tool.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
enum Xtask {
    /// Run everything that a change must pass, in the order in which failures are cheapest.
    Ci(ci::Options),
    /// Check the house rules that the compiler does not know.
    Tidy,
    /// Feed what reads other processes' bytes with anything: see the folder `fuzz`.
    Fuzz(fuzz::Options),
    /// Run the tests of the unsafe parts under the sanitizers, and Miri where there is one.
    Sanitize,
    /// Run the concurrent parts under model checkers: loom, and shuttle.
    Model(model::Options),
    /// Run tests, examples and a storm on 64-bit Arm, in an emulated machine.
    Arm(arm::Options),
    /// Run `SpawnPool` with the parts of the system that each Unix has, and not only Linux.
    Portable,
    /// Measure every contender in a release build: arguments go to procpool-bench's `compare`.
    Compare {
        /// What `compare` is asked; try `--help` after `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Make random calls while workers and fork servers are killed, and check what became of each.
    Chaos(chaos::ChaosOptions),
    /// Let system calls of a pool fail, one after the other, and check how it ends.
    Inject(inject::Options),
    /// Make and drop pools and run tasks, and check that nothing grows.
    Soak(chaos::SoakOptions),
}

fn main() -> ExitCode {
    let root = root();
    let done = match Xtask::parse() {
        Xtask::Ci(options) => ci::run(&root, &options),
        Xtask::Tidy => tidy::run(&root),
        Xtask::Fuzz(options) => fuzz::run(&root, &options),
        Xtask::Sanitize => sanitize::run(&root),
        Xtask::Model(options) => model::run(&root, &options),
        Xtask::Arm(options) => arm::run(&root, &options),
        Xtask::Portable => portable::run(&root),
        Xtask::Compare { arguments } => compare(&root, &arguments),
        Xtask::Chaos(options) => chaos::chaos(&root, &options),
        Xtask::Inject(options) => inject::run(&root, &options),
        Xtask::Soak(options) => chaos::soak(&root, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: where cargo says that this package is, now, and not where it was
/// when it was built, for a target folder can be shared by several checkouts.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map(Path::to_owned).unwrap_or(package)
}

fn compare(root: &Path, arguments: &[OsString]) -> Result<()> {
    let mut command = cargo::cargo(root, "run --release --package procpool-bench -- compare");
    let status = command
        .args(arguments)
        .status()
        .context("cargo cannot be started")?;
    anyhow::ensure!(status.success(), "compare failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Xtask;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Xtask::command().debug_assert();
    }
}
