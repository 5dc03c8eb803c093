//! Where processes hang: what the kernel and, where there is one, a debugger say of their threads.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody says when a file of /proc changes"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the debugger may take for one process.
const DEBUGGER_LIMIT: Duration = Duration::from_secs(20);

/// Prints the stacks of these processes.
pub fn print(processes: &[u32]) {
    for pid in processes {
        describe(*pid);
    }
    for pid in processes {
        backtraces(*pid);
    }
}

/// What the kernel says each thread of a process waits for.
fn describe(pid: u32) {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    eprintln!("--- process {pid}: {command}");
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |what: &str| {
            let text = fs::read_to_string(thread.path().join(what)).unwrap_or_default();
            text.trim().to_owned()
        };
        eprintln!(
            "thread {} {}: wchan {}, syscall {}\n{}",
            thread.file_name().display(),
            read("comm"),
            read("wchan"),
            read("syscall"),
            read("stack"),
        );
    }
}

/// What gdb says of a process's threads, where there is gdb.
fn backtraces(pid: u32) {
    #[allow(clippy::disallowed_methods, reason = "a debugger is no worker")]
    let gdb = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args(["-ex", "set pagination off"])
        .args(["-ex", "thread apply all backtrace"])
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .spawn();
    let Ok(mut gdb) = gdb else {
        return eprintln!("(with gdb installed, the backtraces of {pid} would stand here)");
    };
    let begun = Instant::now();
    while matches!(gdb.try_wait(), Ok(None)) {
        if begun.elapsed() > DEBUGGER_LIMIT {
            let _ = gdb.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
