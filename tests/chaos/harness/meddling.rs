//! Harm that lasts for a while: a process that is stopped, traced or frozen, this program being
//! stopped, too few descriptors or processes. All of it says whether it took effect.

use std::env;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use procpool_testing::procfs;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, pidfd_send_signal, prlimit, setrlimit,
};

use super::effects::Harm;
use super::sandbox;

/// Names whom this program is to trace, when it is run as a tracer, and how.
const TRACED: &str = "CHAOS_TRACED";

/// Where control groups of the first version freeze, and those of the second, alone or beside it.
const FREEZERS: [&str; 3] = [
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/unified",
];

/// Where control groups limit the number of processes.
const LIMITERS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];

/// The number of the capability to trace everybody.
const CAP_SYS_PTRACE: u32 = 19;

/// A process that is held up, until this is dropped.
pub(crate) struct Held {
    pid: u32,
    by: By,
}

enum By {
    Signal(OwnedFd),
    Tracer(Child),
    Debugger(Child),
    Freezer(Group),
}

impl Held {
    /// Stops a process.
    pub(crate) fn stopped(pid: u32, process: OwnedFd) -> Option<Self> {
        pidfd_send_signal(&process, Signal::STOP).ok()?;
        let by = By::Signal(process);
        Some(Self { pid, by })
    }

    /// Traces a process as debuggers do, who stop it and leave it so, or as `strace` does.
    pub(crate) fn traced(pid: u32, like_a_debugger: bool) -> Option<Self> {
        let how = if like_a_debugger { "stop" } else { "follow" };
        let mut command = Command::new(env::current_exe().ok()?);
        command.env(TRACED, format!("{pid} {how}"));
        // Nobody traces it in turn: whoever waited for its end would wait for its tracer's.
        command.env_remove(sandbox::MARK);
        command.stdin(Stdio::null());
        let tracer = command.spawn().ok()?;
        let by = if like_a_debugger {
            By::Debugger(tracer)
        } else {
            By::Tracer(tracer)
        };
        Some(Self { pid, by })
    }

    /// Freezes a process, where this program may do that, by the one kind of group or the other.
    pub(crate) fn frozen(pid: u32, first: usize) -> Option<Self> {
        let name = format!("chaos-{pid}");
        let freezers = (0..FREEZERS.len()).map(|next| FREEZERS[(first + next) % FREEZERS.len()]);
        // From here on it is undone, whatever comes.
        let group = freezers
            .into_iter()
            .find_map(|it| Group::freezing(it, &name))?;
        group.take_in(pid).ok()?;
        group.set_frozen(true);
        let by = By::Freezer(group);
        Some(Self { pid, by })
    }

    /// What it is.
    pub(crate) fn harm(&self) -> Harm {
        match self.by {
            By::Signal(_) => Harm::Stop,
            By::Tracer(_) => Harm::Tracer,
            By::Debugger(_) => Harm::Debugger,
            By::Freezer(_) => Harm::Freeze,
        }
    }

    /// Whether the process is held up, at this moment.
    pub(crate) fn has_effect(&self) -> bool {
        let is_traced_by = |tracer: &Child| procfs::tracer(self.pid) == Some(tracer.id());
        match &self.by {
            By::Signal(_) => procfs::state(self.pid).as_deref() == Some("T"),
            By::Tracer(tracer) => is_traced_by(tracer),
            By::Debugger(tracer) => {
                is_traced_by(tracer) && procfs::state(self.pid).as_deref() == Some("t")
            }
            By::Freezer(group) => group.is_frozen() && group.inside().contains(&self.pid),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match &mut self.by {
            By::Signal(process) => {
                let _ = pidfd_send_signal(&*process, Signal::CONT);
            }
            By::Tracer(tracer) | By::Debugger(tracer) => {
                // With the tracer its hold ends.
                let _ = tracer.kill();
                let _ = tracer.wait();
            }
            By::Freezer(group) => group.set_frozen(false),
        }
    }
}

/// A control group of this program's. When it is dropped, who is inside returns to the group above.
struct Group(PathBuf);

impl Group {
    /// A new one, if it can do what this file is for.
    fn with(above: &str, name: &str, file: &str) -> Option<Self> {
        let folder = Path::new(above).join(name);
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        group.0.join(file).exists().then_some(group)
    }

    fn freezing(above: &str, name: &str) -> Option<Self> {
        Self::with(above, name, "freezer.state")
            .or_else(|| Self::with(above, name, "cgroup.freeze"))
    }

    /// One in which nobody can be started.
    fn without_processes(name: &str) -> Option<Self> {
        let mut groups = LIMITERS
            .iter()
            .filter_map(|it| Self::with(it, name, "pids.max"));
        let group = groups.next()?;
        fs::write(group.0.join("pids.max"), "0").ok()?;
        Some(group)
    }

    fn take_in(&self, pid: u32) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    fn inside(&self) -> Vec<u32> {
        let inside = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        inside.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn set_frozen(&self, frozen: bool) {
        let (first, second) = if frozen {
            ("FROZEN", "1")
        } else {
            ("THAWED", "0")
        };
        let (one, other) = (self.0.join("freezer.state"), self.0.join("cgroup.freeze"));
        // One of the two is there. To write to one that is not would make it, in a plain folder.
        let _ = if one.exists() {
            fs::write(one, first)
        } else {
            fs::write(other, second)
        };
    }

    /// Whether everybody inside has stopped, as the kernel says.
    fn is_frozen(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.0.join(name)).unwrap_or_default();
        read("freezer.state").trim() == "FROZEN"
            || read("cgroup.events").lines().any(|line| line == "frozen 1")
    }

    /// How often the limit of processes has refused one.
    fn refused(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        let mut lines = events.lines();
        let count = lines.find_map(|line| line.strip_prefix("max ")?.parse().ok());
        count.unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A zombie is in it until it is reaped, and somebody inside may have had children.
        for _ in 0..1000 {
            let above = self.0.parent().map(|above| above.join("cgroup.procs"));
            for pid in self.inside() {
                if let Some(above) = &above {
                    let _ = fs::write(above, pid.to_string());
                }
            }
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether this program may trace its workers.
pub(crate) fn may_trace() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    mask.unwrap_or(0) & 1 << CAP_SYS_PTRACE != 0 || scope.is_ok_and(|scope| scope.trim() == "0")
}

/// Whether this program may freeze its workers.
pub(crate) fn may_freeze() -> bool {
    let name = format!("chaos-try-{}", std::process::id());
    FREEZERS
        .iter()
        .any(|it| Group::freezing(it, &name).is_some())
}

/// Whether this program may have control groups that limit processes.
pub(crate) fn has_process_groups() -> bool {
    Group::without_processes(&format!("chaos-try-{}", std::process::id())).is_some()
}

/// Whether a limit of processes can hold for this program: root has none but that of a control
/// group.
pub(crate) fn may_limit_processes() -> bool {
    !rustix::process::geteuid().is_root() || has_process_groups()
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

/// Has this whole program stopped for a while, by somebody else. Whether it was.
pub(crate) fn stop_this_program(time: Duration) -> bool {
    // The name of this program has no spaces.
    let script = format!(
        "kill -STOP $PPID; sleep {}; read pid name state rest </proc/$PPID/stat; \
         kill -CONT $PPID; test \"$state\" = T",
        time.as_secs_f64()
    );
    let helper = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn();
    let Ok(mut helper) = helper else { return false };
    helper.wait().is_ok_and(|status| status.success())
}

/// Leaves this program this many descriptors more than it has, while something is done and for a
/// while after it. Whether there were no more.
pub(crate) fn with_few_descriptors(more: u64, time: Duration, meanwhile: impl FnOnce()) -> bool {
    let Ok(open) = fs::read_dir("/proc/self/fd").map(|open| open.count() as u64) else {
        return false;
    };
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(open + more),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, few).is_err() {
        return false;
    }
    let mut taken = Vec::new();
    let refused = loop {
        match fs::File::open("/dev/null") {
            Ok(file) if taken.len() as u64 <= open + more => taken.push(file),
            Ok(_) => break false,
            Err(_) => break true,
        }
    };
    drop(taken);
    meanwhile();
    std::thread::sleep(time);
    setrlimit(Resource::Nofile, limit).expect("it was so before");
    refused
}

/// Leaves this program, or a fork server of its, without any process or thread more, while
/// something is done and for a while after it. Whether somebody wanted one.
pub(crate) fn without_processes(
    server: Option<u32>,
    time: Duration,
    meanwhile: impl FnOnce(),
) -> bool {
    let pid = server.unwrap_or_else(std::process::id);
    let group = Group::without_processes(&format!("chaos-few-{pid}"));
    let group = group.filter(|group| group.take_in(pid).is_ok());
    // Of the user's own limit, where there is no such group.
    let process = Pid::from_raw(pid.cast_signed());
    let limit = getrlimit(Resource::Nproc);
    let few = Rlimit {
        current: Some(0),
        maximum: limit.maximum,
    };
    let before = prlimit(process, Resource::Nproc, few);
    let refused = server.is_none() && std::thread::Builder::new().spawn(|| ()).is_err();
    meanwhile();
    std::thread::sleep(time);
    if let Ok(before) = before {
        // A server may have died of it, or of something else.
        let _ = prlimit(process, Resource::Nproc, before);
    }
    refused || group.is_some_and(|group| group.refused() > 0)
}
