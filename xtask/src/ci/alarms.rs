//! Green tests say nothing that looks like a failure. Crashes on purpose are captured where they
//! happen; who reads a green run must not have to guess which of them were.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::watchdog;

/// What the standard library, the runtime and shells say of a program that ends badly.
const ALARMS: &[&str] = &[
    "panicked at",
    "stack backtrace:",
    "fatal runtime error",
    "memory allocation of",
    "has overflowed its stack",
    "thread caused non-unwinding panic",
    "core dumped",
    "Segmentation fault",
];

/// Runs tests under the watchdog. Their output is printed as it comes.
///
/// # Errors
/// As for [`watchdog::run`]; and when they pass, but say what looks like a failure.
pub(super) fn run(mut command: Command, limit: Duration) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let listener = thread::spawn(|| pass_on(reader));
    // It drops the command, and with it our ends of the pipe.
    watchdog::run(command, limit)?;
    let alarms = listener.join().expect("it does not panic")?;
    if !alarms.is_empty() {
        bail!(
            "the tests pass, but say what looks like a failure: capture it where it is said\n{}",
            alarms.join("\n")
        );
    }
    Ok(())
}

/// Prints all lines; returns those that alarm.
fn pass_on(reader: PipeReader) -> io::Result<Vec<String>> {
    let mut alarms = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        // By the macro, which tests can capture.
        println!("{line}");
        if is_alarming(&line) {
            alarms.push(line.into_owned());
        }
    }
    Ok(alarms)
}

fn is_alarming(line: &str) -> bool {
    // The names of tests may say what they are about.
    !line.starts_with("test ") && ALARMS.iter().any(|alarm| line.contains(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, Duration::from_secs(60))
    }

    #[test]
    fn words_of_a_failure_fail_a_green_run() {
        let said = shell("echo 'test result: ok'; echo 'fatal runtime error: x, aborting' >&2");
        let error = said.expect_err("it sounds bad").to_string();
        assert!(
            error.contains("\nfatal runtime error: x, aborting"),
            "{error}"
        );
        shell("echo 'test a_task_that_panicked at once ... ok'").expect("only a name");
    }
}
