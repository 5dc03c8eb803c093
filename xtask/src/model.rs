//! `cargo xtask model`: the concurrent parts of procpool-core under model checkers.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::{cargo, watchdog};

/// Each is a build of its own, in a target folder of its own, for it changes the flags of the
/// compiler.
const CHECKERS: &[&str] = &["loom", "shuttle"];

/// Their own code, which is run at each step of each schedule.
const OPTIMISED: &[&str] = &[
    "corosensei",
    "generator",
    "loom",
    "shuttle-engine",
    "shuttle-schedulers",
    "shuttle-std",
];

/// For a build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// For all models beyond the time that they were given.
const TEST_LIMIT: Duration = Duration::from_secs(10 * 60);

/// More than there are models for shuttle.
const MODELS: u32 = 50;

/// What `cargo xtask model` can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long shuttle looks at each of its models; loom looks at all there is to see.
    #[arg(long, default_value_t = 1)]
    seconds: u32,
    /// Only models whose names contain this.
    name: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 1,
            name: None,
        }
    }
}

/// Runs the models.
///
/// # Errors
/// When one of them fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let target = cargo::target(root);
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let name = options.name.as_deref().unwrap_or_default();
    for checker in CHECKERS {
        let mut test = cargo::cargo(root, "test --package procpool-core --lib");
        test.args(["--config", "profile.dev.debug='line-tables-only'"]);
        for package in OPTIMISED {
            test.arg("--config")
                .arg(format!("profile.dev.package.{package}.opt-level=2"));
        }
        test.arg("--target-dir")
            .arg(target.join(format!("model-{checker}")))
            .env("RUSTFLAGS", format!("{flags} --cfg {checker}"))
            .env("MODEL_SECONDS", options.seconds.to_string());
        let mut build = cargo::again(&test);
        build.arg("--no-run");
        watchdog::run(build, BUILD_LIMIT)?;
        test.args(["--", "--nocapture", &format!("engine::models::{name}")]);
        let limit = TEST_LIMIT + Duration::from_secs(1) * options.seconds * MODELS;
        watchdog::run(test, limit)?;
    }
    Ok(())
}
