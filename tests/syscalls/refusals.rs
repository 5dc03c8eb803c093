//! Sandboxes, and what a pool makes of each.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::sandbox::CALLS;
use crate::scenario::WORKERS;

/// How long the scenario may take. It takes a second.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for backend in ["fork", "spawn"] {
        let test = move || judge(backend, None);
        trials.push(Trial::test(format!("{backend}::nothing_is_refused"), test));
        for call in CALLS {
            for errno in [Errno::PERM, Errno::NOSYS] {
                let name = format!("{backend}::{}_{}", call.name, errno.raw_os_error());
                let test = move || judge(backend, Some((call.name, errno)));
                trials.push(Trial::test(name, test));
            }
        }
        for call in CALLS {
            let name = format!("{backend}::workers_without_{}", call.name);
            let test = move || judge_workers(backend, call.name);
            trials.push(Trial::test(name, test));
        }
    }
    trials
}

/// A worker that has begun needs none of these: an initializer may refuse them all.
fn judge_workers(backend: &str, call: &str) -> Result<(), Failed> {
    let errno = Errno::PERM.raw_os_error().to_string();
    let said = run(backend, &[WORKERS, call, &errno])?;
    let is_right = said.lines().all(|line| line.ends_with(": right"));
    is_right.then_some(()).ok_or_else(|| said.into())
}

/// Without these a pool does all that it does with them.
const DISPENSABLE: &[&str] = &[
    "epoll_pwait2",
    "epoll_pwait",
    "epoll_wait",
    "ppoll",
    "statx",
    "madvise(MADV_WIPEONFORK)",
    "membarrier",
    "getrandom",
    "getrusage",
    "sched_getaffinity",
    "prlimit64",
    "getppid",
    "pidfd_send_signal",
    "kill",
    "tgkill",
    "waitid",
    "setpgid",
    "prctl(PR_SET_PDEATHSIG)",
    "prctl(PR_SET_NAME)",
    "clone(CLONE_PARENT)",
    "rt_sigtimedwait",
    "sigaltstack",
];

/// These are different where workers are started by executing the program again.
const NEEDED_TO_SPAWN: &[&str] = &["setpgid", "prctl(PR_SET_PDEATHSIG)"];

/// Every step is right, or ends with an error that names the call, and that only if there is no
/// other way.
fn judge(backend: &str, refused: Option<(&str, Errno)>) -> Result<(), Failed> {
    let errno = refused.map(|(_, errno)| errno.raw_os_error().to_string());
    let words: Vec<&str> = refused
        .iter()
        .flat_map(|(call, _)| [*call, errno.as_deref().unwrap_or_default()])
        .collect();
    let said = run(backend, &words)?;
    let name = refused.map(|(call, _)| call.split('(').next().unwrap_or(call));
    let is_dispensable = refused.is_none_or(|(call, _)| {
        DISPENSABLE.contains(&call) && !(backend == "spawn" && NEEDED_TO_SPAWN.contains(&call))
    });
    for line in said.lines() {
        let is_right = line.ends_with(": right");
        let is_named = line.contains(": error ") && name.is_some_and(|name| line.contains(name));
        if !is_right && (is_dispensable || !is_named) {
            return Err(format!("{line}\nin\n{said}").into());
        }
    }
    Ok(())
}

/// Runs the scenario with these words and says what it said.
fn run(backend: &str, words: &[&str]) -> Result<String, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["scenario", backend])
        .args(words)
        .process_group(0);
    let (mut output, input) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input);
    let mut child = command.spawn()?;
    // It has copies of the pipe's end.
    drop(command);
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = output.read_to_end(&mut said);
        let _ = end.send(read.map(|_| said));
    });
    // The pipe ends with the last process that has it: with everything that the scenario has
    // started.
    let said = ended.recv_timeout(LIMIT);
    if said.is_err() {
        let group = Pid::from_child(&child);
        kill_process_group(group, Signal::KILL)?;
    }
    let status = child.wait()?;
    let said = String::from_utf8_lossy(&said.map_err(|_| "it hangs")??).into_owned();
    if !status.success() {
        return Err(format!("{status}:\n{said}").into());
    }
    Ok(said)
}
