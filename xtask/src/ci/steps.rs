//! What CI consists of, in the order in which it runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::leftovers::Leftovers;
use super::{alarms, examples, packages};
use crate::{cargo, chaos, inject, model, portable, tidy, watchdog};

/// For what only compiles: all dependencies, from nothing, on the slowest machine we care for.
pub(super) const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// For tests that are built already. They take a quarter of an hour on two processors; after this
/// they hang. (Most of them have a watchdog of their own, which says so after half a minute.)
const TEST_LIMIT: Duration = Duration::from_secs(30 * 60);

/// For one example, which takes some seconds.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(120);

/// How long it storms.
const CHAOS_SECONDS: &str = "60";

/// The facade with each choice of features, each of which must build alone.
const FEATURE_CHOICES: &[&str] = &[
    "",
    "--features fork",
    "--features spawn",
    "--features cluster",
];

/// Of these, those with pools of processes on this machine, which must pass alone.
const BACKENDS_ALONE: &[&str] = &["--features fork", "--features spawn"];

/// See [`systems`].
const OTHER_TARGETS: &[&str] = &[
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
    "x86_64-pc-windows-gnu",
];

/// Features that add methods. Tests have them all, so each is also built without tests.
const FEATURES_APART: &[&str] = &[
    "",
    "--features cluster",
    "--features dashboard",
    "--features inspect",
    "--features json",
    "--features metrics",
    "--features progress",
    "--features sandbox",
    "--features stream",
    "--features tracing",
];

/// Our own crates optimised, and those of others as the tests have built them: see the file.
const OPTIMISED: &str = "--config .ci/optimised.toml";

/// Members without a library. Whoever is built with `--lib` beside them has the crates of others
/// with the same features as the whole workspace, and so they are built already.
const WITHOUT_LIBRARIES: &str = "--package procpool-showcase --package procpool-tests \
                                 --package procpool-cli \
                                 --package xtask";

/// One thing that CI does.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) purpose: &'static str,
    pub(super) run: fn(&Setting) -> Result<()>,
}

/// All of them. What is quick or most often wrong comes first.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        purpose: "is everything formatted?",
        run: fmt,
    },
    Step {
        name: "tidy",
        purpose: "are the house rules kept?",
        run: |setting| tidy::run(&setting.root),
    },
    Step {
        name: "typos",
        purpose: "is everything spelt right?",
        run: typos,
    },
    Step {
        name: "deny",
        purpose: "may these crates be in the build, and come from there?",
        run: deny,
    },
    Step {
        name: "shear",
        purpose: "is every dependency used?",
        run: |setting| setting.build("shear --frozen --deny-warnings"),
    },
    Step {
        name: "clippy",
        purpose: "does it build without a warning, with every choice of features?",
        run: clippy,
    },
    Step {
        name: "oldest",
        purpose: "does the lowest compiler that is promised build what is published?",
        run: oldest,
    },
    Step {
        name: "systems",
        purpose: "does it compile for other systems and processors?",
        run: systems,
    },
    Step {
        name: "fuzz",
        purpose: "do the fuzz targets build?",
        run: fuzz,
    },
    Step {
        name: "docs",
        purpose: "is the documentation free of broken links?",
        run: docs,
    },
    Step {
        name: "packages",
        purpose: "can the crates be packaged, and compiled from what is packaged?",
        run: packages::run,
    },
    Step {
        name: "tests",
        purpose: "do the tests pass, and with each backend alone?",
        run: tests,
    },
    Step {
        name: "portable",
        purpose: "do they pass with the parts of the system that need no Linux?",
        run: portable_tests,
    },
    Step {
        name: "model",
        purpose: "do the concurrent parts hold under model checkers?",
        run: |setting| model::run(&setting.root, &model::Options::default()),
    },
    Step {
        name: "inject",
        purpose: "does every task end once, whatever system call fails?",
        run: |setting| inject::run(&setting.root, &inject::Options::short()),
    },
    Step {
        name: "chaos",
        purpose: "does every task end once, whoever is killed?",
        run: run_chaos,
    },
    Step {
        name: "examples",
        purpose: "do the examples run?",
        run: run_examples,
    },
    Step {
        name: "benches",
        purpose: "do the benchmarks run, once each?",
        run: benches,
    },
    Step {
        name: "leftovers",
        purpose: "has all of that left nothing behind?",
        run: |setting| setting.leftovers.check(),
    },
];

/// What the steps share.
pub(super) struct Setting {
    root: PathBuf,
    leftovers: Leftovers,
}

impl Setting {
    pub(super) fn new(root: &Path) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            leftovers: Leftovers::watch()?,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub(super) fn target(&self) -> PathBuf {
        cargo::target(&self.root)
    }

    pub(super) fn cargo(&self, arguments: &str) -> Command {
        cargo::cargo(&self.root, arguments)
    }

    /// Runs a cargo command that only builds or checks.
    fn build(&self, arguments: &str) -> Result<()> {
        watchdog::run(self.cargo(arguments), BUILD_LIMIT)
    }

    /// Runs a cargo command that runs our own programs, in a temporary folder of their own.
    fn execute(&self, mut command: Command, limit: Duration) -> Result<()> {
        command.env("TMPDIR", self.leftovers.folder());
        watchdog::run(command, limit)
    }

    /// Runs tests: like [`execute`](Self::execute), and they must sound like success. None may be
    /// left out for want of a server, or of network namespaces: `.ci/run` installs what they need.
    fn run_tests(&self, mut command: Command, backtrace: &str) -> Result<()> {
        command
            .env("TMPDIR", self.leftovers.folder())
            .env("PROCPOOL_CI", "1")
            .env("RUST_BACKTRACE", backtrace);
        alarms::run(command, TEST_LIMIT)
    }
}

fn fmt(setting: &Setting) -> Result<()> {
    setting.build("fmt --all --check")
}

fn typos(setting: &Setting) -> Result<()> {
    let mut command = Command::new("typos");
    command.current_dir(&setting.root);
    watchdog::run(command, BUILD_LIMIT)
        .context("the words of `typos.toml` are right; `.ci/run` installs the tool `typos`")
}

/// What `deny.toml` says, of the workspace and of the fuzz targets, which are one of their own.
fn deny(setting: &Setting) -> Result<()> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        // Each of the two lacks something that is said for the other.
        let run = format!(
            "deny --offline --locked --manifest-path {manifest} --config deny.toml --workspace \
             check --hide-inclusion-graph --allow unused-wrapper --allow unmatched-skip \
             --allow unmatched-skip-root --allow license-exception-not-encountered bans licenses \
             sources"
        );
        setting
            .build(&run)
            .context("`.ci/run` installs the tool `cargo-deny`")?;
    }
    Ok(())
}

fn clippy(setting: &Setting) -> Result<()> {
    setting.build("clippy --workspace --all-targets -- -D warnings")?;
    // In libraries an error is handled, or `expect` says why it cannot be. Tests and examples are
    // free to unwrap.
    setting.build(
        "clippy --workspace --exclude procpool-bench --exclude procpool-conformance --lib --bins \
         -- -D warnings -D clippy::unwrap_used",
    )?;
    for features in FEATURE_CHOICES {
        setting.build(&format!(
            "clippy --package procpool --package procpool-tests --all-targets \
             --no-default-features {features} -- -D warnings"
        ))?;
    }
    for features in FEATURES_APART {
        setting.build(&format!(
            "clippy --package procpool --package procpool-core --lib {features} -- -D warnings"
        ))?;
    }
    let portable = "clippy --package procpool-core --package procpool-spawn --all-targets -- \
                    -D warnings";
    watchdog::run(portable::command(&setting.root, portable), BUILD_LIMIT)?;
    Ok(())
}

/// What users build, by the `rust-version` of the manifests. (The newest cargo's lints do not tell
/// all that an old compiler refuses.)
fn oldest(setting: &Setting) -> Result<()> {
    let version = env!("CARGO_PKG_RUST_VERSION");
    let mut command = Command::new("rustup");
    command.current_dir(&setting.root);
    command.args(["run", version, "cargo", "check", "--locked"]);
    // The suite brings the others.
    command.args(["--package", "procpool", "--package", "procpool-conformance"]);
    command.args(["--package", "procpool-cli", "--package", "procpool-agent"]);
    command.args(["--all-features", "--target-dir", "target/oldest"]);
    watchdog::run(command, BUILD_LIMIT).context("`.ci/run` installs that compiler, by rustup")
}

/// What users build, for other systems and another processor. `docs/systems.md` has this list.
fn systems(setting: &Setting) -> Result<()> {
    for target in OTHER_TARGETS {
        let mut command = setting.cargo(&format!(
            "check --locked --target {target} --package procpool \
             --features json,progress,stream,tracing"
        ));
        command.env("RUSTFLAGS", "-D warnings");
        command.env("CARGO_TARGET_DIR", setting.target().join("systems"));
        watchdog::run(command, BUILD_LIMIT)
            .with_context(|| format!("`.ci/run` installs the standard library for {target}"))?;
    }
    Ok(())
}

/// To run them takes what only nightly compilers give freely (`cargo xtask fuzz`); to check them
/// does not, so that they do not rot.
fn fuzz(setting: &Setting) -> Result<()> {
    let manifest = "--manifest-path fuzz/Cargo.toml --target-dir target/fuzz";
    let mut command = setting.cargo(&format!("check --locked {manifest}"));
    command.env("RUSTFLAGS", "--cfg fuzzing");
    watchdog::run(command, BUILD_LIMIT)
}

fn docs(setting: &Setting) -> Result<()> {
    let mut command = setting.cargo("doc --workspace --no-deps --all-features");
    command.env("RUSTDOCFLAGS", "-D warnings");
    watchdog::run(command, BUILD_LIMIT)
}

fn tests(setting: &Setting) -> Result<()> {
    // Apart, so that the limit of the next command is about tests and not about compilers.
    setting.build("test --workspace --no-run")?;
    // To the letter what the README asks people to type, some of whom have asked for backtraces.
    setting.run_tests(setting.cargo("test --workspace"), "1")?;
    // What reads the compiler's tables must also know them of optimised code. One test at a time:
    // the list of recent panics is the process's.
    let optimised = format!("{OPTIMISED} test --package procpool-core {WITHOUT_LIBRARIES} --lib");
    setting.build(&format!("{optimised} --no-run"))?;
    let chosen = format!("{optimised} -- worker:: panic:: --test-threads=1");
    setting.run_tests(setting.cargo(&chosen), "0")?;
    for features in BACKENDS_ALONE {
        // What one backend does by itself it has done above; here it is seen that it can.
        let command = format!(
            "test --package procpool --package procpool-tests --no-default-features {features} \
             --lib --test properties --test idle"
        );
        setting.build(&format!("{command} --no-run"))?;
        setting.run_tests(setting.cargo(&command), "0")?;
    }
    Ok(())
}

/// Of a `SpawnPool`, the other one that there is then, with some chaos.
fn portable_tests(setting: &Setting) -> Result<()> {
    for build in portable::builds(&setting.root) {
        watchdog::run(build, BUILD_LIMIT)?;
    }
    for test in portable::tests(&setting.root) {
        setting.run_tests(test, "1")?;
    }
    setting.execute(portable::chaos(&setting.root, "20"), TEST_LIMIT)
}

fn run_chaos(setting: &Setting) -> Result<()> {
    // All kinds of pools side by side, in the build that the tests have made.
    let mut command = chaos::program(&setting.root, true);
    command.args(["storm", "--seconds", CHAOS_SECONDS]);
    // A server and network namespaces are there: see [`Setting::run_tests`].
    command.env("PROCPOOL_CI", "1");
    setting.execute(command, TEST_LIMIT)
}

fn run_examples(setting: &Setting) -> Result<()> {
    for package in examples::PACKAGES {
        // Alone, as people run them: together they have more features.
        setting.build(&format!("check --package {package} --examples"))?;
    }
    let plan = examples::plan(&setting.root)?;
    let program = |name: &str| setting.target().join("debug/examples").join(name);
    for example in &plan {
        // An earlier build of one that is left out now would do in its place.
        let _ = fs::remove_file(program(&example.name));
    }
    setting.build(&format!("{OPTIMISED} build --workspace --examples"))?;
    let mut failed = Vec::new();
    for example in plan {
        let name = example.name;
        let program = program(&name);
        let mut command = cargo::program(&setting.root, program);
        command.args(example.arguments);
        println!();
        if let Err(error) = setting.execute(command, EXAMPLE_LIMIT) {
            println!("example {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("these examples failed: {}", failed.join(", "));
    }
    setting.build(&format!(
        "run --quiet --package procpool-cli -- timeline {}",
        examples::TRACE
    ))
}

fn benches(setting: &Setting) -> Result<()> {
    let benches = format!(
        "{OPTIMISED} test --package procpool-bench {WITHOUT_LIBRARIES} --lib --bench pools"
    );
    setting.build(&format!("{benches} --no-run"))?;
    setting.execute(setting.cargo(&format!("{benches} -- --test")), TEST_LIMIT)
}
