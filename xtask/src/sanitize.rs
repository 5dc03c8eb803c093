//! `cargo xtask sanitize`: the unit tests of the parts with unsafe code, under whatever finds more
//! than a test can assert and works on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// One way to run some tests.
struct Run {
    name: &'static str,
    /// The compiler's flags.
    flags: &'static str,
    /// Which tests of procpool-core to run, or to skip.
    tests: &'static str,
}

const RUNS: &[Run] = &[
    Run {
        name: "address",
        flags: "-Zsanitizer=address",
        // It leaks, which is the best that can be done with what panics when it is dropped.
        tests: "--skip a_payload_that_panics_when_dropped_is_survived",
    },
    // The standard library is not instrumented, so only what synchronises by atomics of its own
    // tells the truth.
    Run {
        name: "thread",
        flags: "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        // One at a time: it does not see that memory was unmapped before other memory came to lie
        // there.
        tests: "ring::tests --test-threads 1",
    },
];

/// Runs them all.
///
/// # Errors
/// When one of them fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    let host = host()?;
    let suppressions = root.join("xtask").join("tsan-suppressions.txt");
    let suppressions = format!("suppressions={}", suppressions.display());
    let mut failed = Vec::new();
    for run in RUNS {
        println!("\n=== {} sanitizer ===", run.name);
        let mut command = cargo::cargo(
            root,
            &format!(
                "test --package procpool-core --lib --target {host} \
                 --target-dir target/sanitize-{} -- {}",
                run.name, run.tests
            ),
        );
        // Only nightly compilers give this freely.
        command
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", run.flags)
            .env("TSAN_OPTIONS", &suppressions);
        if !succeeds(&mut command)? {
            failed.push(run.name);
        }
    }
    println!("\n=== Miri ===");
    let mut command = cargo::cargo(root, "miri --version");
    if command.output().is_ok_and(|output| output.status.success()) {
        // What makes no system call that it does not know.
        let mut command = cargo::cargo(
            root,
            "miri test --package procpool-core --lib -- codec::bulk protocol::",
        );
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation");
        if !succeeds(&mut command)? {
            failed.push("Miri");
        }
    } else {
        println!("this toolchain has none: rustup +nightly component add miri");
    }
    ensure!(failed.is_empty(), "failed under: {}", failed.join(", "));
    Ok(())
}

fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().context("cargo cannot be started")?;
    Ok(status.success())
}

/// The triple of this machine. Sanitizers need it said, so that build scripts do without them.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output();
    let text = output.context("rustc cannot be started")?.stdout;
    let text = String::from_utf8_lossy(&text);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not say what machine this is")
}
