//! Harm that lasts for a while: a process that is stopped, traced or frozen, this program being
//! stopped, too few descriptors.

use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, pidfd_send_signal, setrlimit};

/// Names whom this program is to trace, when it is run as a tracer, and how.
const TRACED: &str = "CHAOS_TRACED";

/// Where control groups of the first version freeze, and those of the second.
const FREEZERS: [&str; 2] = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];

/// A process that is held up, until this is dropped.
pub(crate) enum Held {
    Stopped(OwnedFd),
    Traced(Child),
    Frozen(PathBuf),
}

impl Held {
    /// Traces a process as debuggers do, who stop it and leave it so, or as `strace` does.
    pub(crate) fn traced(pid: u32, like_a_debugger: bool) -> Option<Self> {
        let how = if like_a_debugger { "stop" } else { "follow" };
        #[allow(clippy::disallowed_methods, reason = "this very program")]
        let mut command = Command::new(env::current_exe().ok()?);
        command.env(TRACED, format!("{pid} {how}"));
        command.stdin(Stdio::null());
        Some(Self::Traced(command.spawn().ok()?))
    }

    /// Freezes a process, where this program may do that.
    pub(crate) fn frozen(pid: u32) -> Option<Self> {
        let folder = |freezer: &&str| {
            let state = ["freezer.state", "cgroup.freeze"];
            let folder = Path::new(freezer).join(format!("chaos-{pid}"));
            fs::create_dir(&folder).ok()?;
            if state.iter().any(|name| folder.join(name).exists()) {
                return Some(folder);
            }
            let _ = fs::remove_dir(folder);
            None
        };
        let folder = FREEZERS.iter().find_map(folder)?;
        // From here on it is undone, whatever comes.
        let held = Self::Frozen(folder.clone());
        fs::write(folder.join("cgroup.procs"), pid.to_string()).ok()?;
        set_frozen(&folder, true);
        Some(held)
    }
}

fn set_frozen(folder: &Path, frozen: bool) {
    let (first, second) = if frozen {
        ("FROZEN", "1")
    } else {
        ("THAWED", "0")
    };
    // One of the two is there.
    let _ = fs::write(folder.join("freezer.state"), first)
        .or_else(|_| fs::write(folder.join("cgroup.freeze"), second));
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            Self::Stopped(process) => {
                let _ = pidfd_send_signal(&*process, Signal::CONT);
            }
            Self::Traced(tracer) => {
                // With the tracer its hold ends.
                let _ = tracer.kill();
                let _ = tracer.wait();
            }
            Self::Frozen(folder) => {
                set_frozen(folder, false);
                let above = folder.parent().map(|above| above.join("cgroup.procs"));
                let inside = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                for pid in inside.lines() {
                    if let Some(above) = &above {
                        let _ = fs::write(above, pid);
                    }
                }
                // A zombie is in it until it is reaped.
                for _ in 0..1000 {
                    if fs::remove_dir(&*folder).is_ok() || !folder.exists() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

/// Whether this program is run as a tracer. It is one until it is killed, or who is traced has
/// died.
pub(crate) fn is_tracer() -> bool {
    let Some((pid, how)) = env::var(TRACED).ok().and_then(|traced| {
        let (pid, how) = traced.split_once(' ')?;
        let pid = nix::unistd::Pid::from_raw(pid.parse().ok()?);
        Some((pid, how.to_owned()))
    }) else {
        return false;
    };
    // It does not outlive who has started it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if ptrace::seize(pid, ptrace::Options::empty()).is_err() {
        return true;
    }
    if how == "stop" {
        let _ = ptrace::interrupt(pid);
        loop {
            std::thread::park();
        }
    }
    loop {
        let went_on = match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Stopped(pid, signal)) => ptrace::cont(pid, signal),
            Ok(WaitStatus::PtraceEvent(pid, ..)) => ptrace::cont(pid, None),
            Ok(_) | Err(_) => return true,
        };
        // It may have been killed meanwhile, which the next wait says.
        let _ = went_on;
    }
}

/// Has this whole program stopped for a while, by somebody else.
pub(crate) fn stop_this_program(time: Duration) {
    let script = format!(
        "kill -STOP $PPID; sleep {}; kill -CONT $PPID",
        time.as_secs_f64()
    );
    #[allow(clippy::disallowed_methods, reason = "somebody else must do it")]
    let helper = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn();
    if let Ok(mut helper) = helper {
        let _ = helper.wait();
    }
}

/// Leaves this program so many descriptors more than it has, for a while.
pub(crate) fn with_few_descriptors(more: u64, time: Duration) {
    let Ok(open) = fs::read_dir("/proc/self/fd").map(|open| open.count() as u64) else {
        return;
    };
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(open + more),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, few).is_ok() {
        std::thread::sleep(time);
        setrlimit(Resource::Nofile, limit).expect("it was so before");
    }
}
