//! Runs this program again, with a temporary folder and a mark of its own, and looks at what is
//! left when it has ended.

use std::env;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procpool_testing::{procfs, stacks};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};

use super::notes::{self, NOTES, RUNS};

/// In the environment of every process of a run, with a value of its own.
pub(crate) const MARK: &str = "CHAOS_MARK";

/// How long processes may outlive the program that they come of: those that die with their parent
/// still need a moment to do so, and the child of a task whose fork server was killed dies by
/// itself.
const GRACE: Duration = Duration::from_secs(5);

/// Makes glibc's allocator give back what is free, so that what a process holds is what it needs:
/// left alone, it learns from a few large blocks to keep blocks of that size in its heaps.
const FRUGAL: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_ARENA_MAX", "2"),
];

/// Runs this program with these arguments, which takes about as long as `time`.
pub(crate) fn run(arguments: &[String], time: Duration) -> Result<(), String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mark = format!("{}-{number}", std::process::id());
    let folder = tempfile::Builder::new()
        .prefix("chaos-")
        .tempdir()
        .map_err(|error| format!("there is no temporary folder: {error}"))?;
    let temporary = folder.path().join("tmp");
    let runs = folder.path().join("runs");
    fs::create_dir(&temporary).map_err(|error| error.to_string())?;
    let notes = notes::create(&runs).map_err(|error| error.to_string())?;
    let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
    command
        .args(arguments)
        .env(MARK, &mark)
        .env(RUNS, &runs)
        .env(NOTES, notes::name(&notes))
        .env("TMPDIR", &temporary)
        .envs(FRUGAL)
        .stdin(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    // The watchdog inside is quicker, unless it hangs itself.
    let limit = Instant::now() + time * 3 + Duration::from_secs(240);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if Instant::now() > limit {
            let mut processes = procfs::with_variable(MARK, &mark);
            processes.sort_unstable();
            stacks::print(&processes);
            let _ = child.kill();
            let _ = child.wait();
            end(&mark);
            return Err(format!("`{}` does not end", arguments.join(" ")));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let left = wait_until_alone(&mark);
    if !left.is_empty() {
        end(&mark);
        return Err(format!("processes are left behind: {}", left.join("; ")));
    }
    if !status.success() {
        return Err(format!("`{}` failed: {status}", arguments.join(" ")));
    }
    let files = fs::read_dir(&temporary).map_err(|error| error.to_string())?;
    let files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
    if !files.is_empty() {
        return Err(format!("files are left behind: {files:?}"));
    }
    Ok(())
}

/// Whether this is such a run, and not who started it.
pub(crate) fn is_inside() -> bool {
    env::var_os(MARK).is_some()
}

/// Whether a process comes of the same run as this one.
pub(crate) fn is_of_this_run(pid: u32) -> bool {
    env::var(MARK).is_ok_and(|mark| procfs::has_variable(pid, MARK, &mark))
}

/// Makes this process fit to be one: it ends with who started it, and its workers' crashes fill
/// no disk.
pub(crate) fn enter() {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    let _ = setrlimit(Resource::Core, limit);
}

/// The processes that still live after a grace.
fn wait_until_alone(mark: &str) -> Vec<String> {
    let end = Instant::now() + GRACE;
    loop {
        let left = procfs::with_variable(MARK, mark);
        if left.is_empty() || Instant::now() > end {
            return left.into_iter().map(procfs::describe).collect();
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Kills all that is left of a run that has failed.
fn end(mark: &str) {
    for pid in procfs::with_variable(MARK, mark) {
        procfs::signal(pid, Signal::KILL);
    }
}
