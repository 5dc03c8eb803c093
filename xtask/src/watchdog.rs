//! Runs one command to its end, which comes by a limit at the latest, and leaves no process.

use std::collections::HashSet;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{processes, stacks};

/// How often orphans are collected while a command runs. Tests give processes a second to vanish.
const COLLECT_EVERY: Duration = Duration::from_millis(100);

/// How long a process may outlive the command that started it: one that dies with its parent
/// still needs a moment to do so.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a command, whose output goes where ours goes, as it comes.
///
/// # Errors
/// - When it cannot be started, or its exit status is not zero.
/// - When it takes longer than `limit`: then the stacks of all processes are printed, and they
///   are killed.
/// - When it leaves a process behind; those are killed as well.
pub(crate) fn run(command: Command, limit: Duration) -> Result<()> {
    let line = describe(&command);
    println!("$ {line}");
    watch(command, &line, limit)
}

/// The same without a word, unless it takes longer than `limit`; messages call it by that name.
///
/// # Errors
/// As for [`run`].
pub(crate) fn watch(mut command: Command, line: &str, limit: Duration) -> Result<()> {
    let before: HashSet<i32> = living()?;
    let mut child = command
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let Some(status) = wait(&mut child, limit)? else {
        println!("`{line}` takes longer than {} s", limit.as_secs());
        stacks::print_all()?;
        processes::kill_all_below()?;
        // It was killed just now; the status says nothing new.
        let _ = child.wait();
        bail!(
            "`{line}` took longer than {} s; the stacks of its processes are above",
            limit.as_secs()
        );
    };
    let strays = strays(&before)?;
    if !strays.is_empty() {
        processes::kill_all_below()?;
    }
    ensure!(status.success(), "`{line}` failed: {status}");
    ensure!(
        strays.is_empty(),
        "`{line}` left processes behind: {}",
        strays.join("; ")
    );
    Ok(())
}

/// `None`: it is not finished.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        processes::wait_for_end(pid, left.min(COLLECT_EVERY))?;
        processes::collect_orphans(Some(child.id()))?;
    }
}

/// The processes that live, after a grace, and did not before: `process 42 (the command line)`.
fn strays(before: &HashSet<i32>) -> io::Result<Vec<String>> {
    let deadline = Instant::now() + GRACE;
    loop {
        processes::collect_orphans(None)?;
        let mut strays = processes::below(processes::own())?;
        strays.retain(|process| !before.contains(&process.pid));
        let left = deadline.saturating_duration_since(Instant::now());
        match strays.first() {
            Some(first) if !left.is_zero() => processes::wait_for_end(first.pid, left)?,
            _ => {
                let describe = |stray: &processes::Process| {
                    format!("process {} ({})", stray.pid, stray.command_line())
                };
                return Ok(strays.iter().map(describe).collect());
            }
        };
    }
}

fn living() -> io::Result<HashSet<i32>> {
    let living = processes::below(processes::own())?;
    Ok(living.iter().map(|process| process.pid).collect())
}

/// The command as one would type it.
fn describe(command: &Command) -> String {
    let mut words: Vec<String> = Vec::new();
    for (name, value) in command.get_envs() {
        // Removed variables are no part of what one would type, nor is the private folder.
        if let Some(value) = value.filter(|_| name != "TMPDIR") {
            words.push(format!("{}='{}'", name.display(), value.display()));
        }
    }
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    words.push(name.display().to_string());
    words.extend(command.get_args().map(|word| word.display().to_string()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tests of one program run side by side and share its children, so all that must not see
    // each other's processes is in one test.
    #[test]
    fn a_command_ends_well_badly_late_or_untidily() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let minute = Duration::from_secs(60);
        processes::adopt_orphans().expect("the kernel is recent");

        run(shell("true"), minute).expect("`true` succeeds");

        let error = run(shell("exit 3"), minute).expect_err("3 is not 0");
        assert!(error.to_string().contains("exit status: 3"), "{error}");

        let error = run(shell("sleep 1000 & exit 0"), minute).expect_err("it leaves a process");
        assert!(error.to_string().contains("sleep 1000"), "{error}");

        let late = Duration::from_millis(300);
        let error = run(shell("sleep 1001 & sleep 1002"), late).expect_err("it takes long");
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(living().expect("Linux has /proc").is_empty());
    }

    #[test]
    fn a_command_is_described_as_typed() {
        let mut command = Command::new("/some/where/cargo");
        command
            .args(["doc", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .env_remove("CARGO_PKG_NAME")
            .env("TMPDIR", "/elsewhere");
        let expected = "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps";
        assert_eq!(describe(&command), expected);
    }
}
