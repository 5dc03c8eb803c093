//! `cargo xtask fuzz`: the fuzz targets in the folder `fuzz`, for a while each.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::cargo;

/// What `cargo xtask fuzz` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Run only these targets; all of them, one after the other, if none is named.
    targets: Vec<String>,
}

/// The most memory that a target may have, and the most that it may ask for at once, in MiB.
/// What reads a worker's bytes needs little more than the bytes.
const MEMORY_MIB: u32 = 1024;
const ALLOCATION_MIB: u32 = 64;

/// Runs the targets. What they find goes to `fuzz/artifacts`; the inputs that were found to lead
/// further to `fuzz/grown`, beside those in `fuzz/corpus` that are kept.
///
/// # Errors
/// When a target fails, or the fuzzer cannot be installed.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    install(root)?;
    let known = targets(root)?;
    let mut failed = Vec::new();
    for target in &known {
        if options.targets.is_empty() || options.targets.contains(target) {
            println!("\n=== {target}: {} s ===", options.seconds);
            let grown = format!("fuzz/grown/{target}");
            fs::create_dir_all(root.join(&grown)).context(grown.clone())?;
            let mut command = fuzzer(
                root,
                &format!("run --all-features {target} {grown} fuzz/corpus/{target} --"),
            );
            command
                .arg(format!("-max_total_time={}", options.seconds))
                .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
                .arg(format!("-malloc_limit_mb={ALLOCATION_MIB}"))
                .arg("-print_final_stats=1");
            if !command
                .status()
                .context("cargo cannot be started")?
                .success()
            {
                failed.push(target.as_str());
            }
        }
    }
    for target in &options.targets {
        if !known.contains(target) {
            bail!("there is no target `{target}`, but {}", known.join(", "));
        }
    }
    ensure!(
        failed.is_empty(),
        "these targets have found something: {}; their inputs are in fuzz/artifacts",
        failed.join(", ")
    );
    Ok(())
}

/// The names of the files in `fuzz/fuzz_targets`, in order.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz").join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Sees to it that there is a `cargo fuzz`.
fn install(root: &Path) -> Result<()> {
    let version = fuzzer(root, "--version").output();
    if version.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    println!("cargo-fuzz is missing: installing it");
    let status = cargo::cargo(root, "install --locked cargo-fuzz").status()?;
    ensure!(status.success(), "cargo-fuzz cannot be installed");
    Ok(())
}

/// A command of cargo-fuzz. It asks the compiler for what only nightly ones give freely.
fn fuzzer(root: &Path, arguments: &str) -> Command {
    let mut command = cargo::cargo(root, &format!("fuzz {arguments}"));
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A target without inputs that are kept would not be run by the tests.
    #[test]
    fn every_target_has_a_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let targets = targets(&root).expect("there is a folder");
        assert!(targets.len() > 5, "{targets:?}");
        for target in targets {
            let corpus = root.join("fuzz").join("corpus").join(&target);
            let mut inputs = fs::read_dir(corpus).expect("a corpus");
            assert!(inputs.next().is_some(), "{target}");
        }
    }
}
