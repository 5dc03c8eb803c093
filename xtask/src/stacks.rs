//! Where processes hang: the stacks of all their threads, by gdb, or what the kernel says.

use std::fs;
use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::processes::{self, Process};

/// gdb takes some seconds for a big program, and can itself hang on a process in a bad state.
const LIMIT_PER_PROCESS: Duration = Duration::from_secs(30);

/// After this long the remaining processes are described by the kernel's view alone.
const LIMIT_FOR_DEBUGGER: Duration = Duration::from_secs(180);

/// Prints the stacks of all processes below this one.
///
/// # Errors
/// When `/proc` cannot be read, or there is no place for a temporary file.
pub(crate) fn print_all() -> io::Result<()> {
    let processes = processes::below(processes::own())?;
    println!("--- {} processes are below this one ---", processes.len());
    let deadline = Instant::now() + LIMIT_FOR_DEBUGGER;
    let mut debugger = true;
    for process in &processes {
        let (pid, state) = (process.pid, process.state);
        println!(
            "\n--- process {pid}, child of {}, state {state}: {}",
            process.parent,
            process.command_line()
        );
        print_threads(process);
        if debugger && Instant::now() < deadline {
            debugger = print_backtraces(process)?;
        }
    }
    println!("--- end of the stacks ---");
    Ok(())
}

/// What the kernel says each thread waits for.
fn print_threads(process: &Process) {
    // A process that has ended meanwhile has no threads to describe.
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", process.pid)) else {
        return;
    };
    for thread in threads.flatten() {
        // What we may not read (without being root) is left empty.
        let read = |what: &str| {
            let text = fs::read_to_string(thread.path().join(what)).unwrap_or_default();
            text.trim().to_owned()
        };
        println!(
            "thread {} {}: wchan {}, syscall {}",
            thread.file_name().display(),
            read("comm"),
            read("wchan"),
            read("syscall")
        );
    }
}

/// `false`: there is no gdb on this machine.
fn print_backtraces(process: &Process) -> io::Result<bool> {
    // A file and no pipe, so that gdb can fill it however long it gets.
    let mut output = tempfile::tempfile()?;
    let spawned = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args(["-ex", "set pagination off"])
        .args(["-ex", "thread apply all backtrace"])
        .args(["-p", &process.pid.to_string()])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn();
    let Ok(mut gdb) = spawned else {
        println!("(with gdb installed, the backtraces would stand here)");
        return Ok(false);
    };
    let ended = i32::try_from(gdb.id())
        .map_err(io::Error::other)
        .and_then(|pid| processes::wait_for_end(pid, LIMIT_PER_PROCESS));
    if !matches!(ended, Ok(true)) {
        println!("(gdb did not come back)");
        // An error means that it has just ended.
        let _ = gdb.kill();
    }
    let _ = gdb.wait();
    output.rewind()?;
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    print!("{}", String::from_utf8_lossy(&text));
    Ok(true)
}
