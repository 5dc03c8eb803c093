//! The processes below this one, read from `/proc`.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, set_child_subreaper, waitpid,
};

/// What `/proc` says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// The process that it will report its end to.
    pub(crate) parent: i32,
    /// `Z` for one that has ended and waits to be collected; see proc(5) for the others.
    pub(crate) state: char,
    /// The name of its executable, cut off at 15 bytes.
    pub(crate) name: String,
}

impl Process {
    /// Its arguments as they were given, or its name when it has none left.
    pub(crate) fn command_line(&self) -> String {
        let arguments = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if line.trim().is_empty() {
            format!("[{}]", self.name)
        } else {
            line.trim().to_owned()
        }
    }

    fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }
}

/// Makes every process below this one stay below it when its parent ends, so that none gets out
/// of sight. In return the orphans must be collected: see [`collect_orphans`].
///
/// # Errors
/// When the kernel does not know how (before Linux 3.4).
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(own_pid()))?)
}

/// All living processes below `ancestor`, without those that only wait to be collected; parents
/// come before their children.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn below(ancestor: i32) -> io::Result<Vec<Process>> {
    let mut found = descendants(&all()?, ancestor);
    found.retain(|process| !process.is_zombie());
    Ok(found)
}

/// This process, as the root for [`below`].
pub(crate) fn own() -> i32 {
    own_pid().as_raw_nonzero().get()
}

/// Collects the orphans that have ended, as the machine's first process would have done, or
/// tests that wait for a process to vanish would wait forever. Leaves `child` to its owner.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn collect_orphans(child: Option<u32>) -> io::Result<()> {
    let is_child = |pid: i32| child.is_some_and(|child| i64::from(child) == i64::from(pid));
    for process in all()? {
        if process.parent == own() && process.is_zombie() && !is_child(process.pid) {
            // An error means that it is no child of ours any more, and so is collected.
            let _ = waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
        }
    }
    Ok(())
}

/// Waits until `pid`, which is below this process, has ended. `false`: it lives on after `limit`.
///
/// # Errors
/// When the kernel has no descriptors for processes (before Linux 5.3), or none left.
pub(crate) fn wait_for_end(pid: i32, limit: Duration) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(true);
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills all processes below this one, also those that they start meanwhile.
///
/// # Errors
/// When `/proc` cannot be read, or processes outlive a minute of being killed.
pub(crate) fn kill_all_below() -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        collect_orphans(None)?;
        let living = below(own())?;
        let Some(first) = living.first() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let message = format!("process {} does not die of SIGKILL", first.pid);
            return Err(io::Error::other(message));
        }
        for process in &living {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // An error means that it has ended already.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        wait_for_end(first.pid, Duration::from_secs(1))?;
    }
}

fn own_pid() -> Pid {
    rustix::process::getpid()
}

fn all() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let is_process = folder
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        // One that ends while we look has nothing left to read.
        if is_process && let Ok(stat) = fs::read(folder.join("stat")) {
            processes.extend(parse_stat(&String::from_utf8_lossy(&stat)));
        }
    }
    Ok(processes)
}

/// Reads `/proc/<pid>/stat`: `42 (name) S 1 …`, where the name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some(Process {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// Those of `all` that are below `ancestor`, parents before their children.
fn descendants(all: &[Process], ancestor: i32) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            // Numbers are reused while `/proc` is read, which can make a circle.
            if process.pid != ancestor && !found.iter().any(|known| known.pid == process.pid) {
                parents.push(process.pid);
                found.push(process.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            state: 'S',
            name: "x".to_owned(),
        }
    }

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let read = parse_stat("42 (a) R 1 (b) S 7 42 42 0").expect("it is a whole line");
        assert_eq!(read.pid, 42);
        assert_eq!(read.name, "a) R 1 (b");
        assert_eq!(read.state, 'S');
        assert_eq!(read.parent, 7);
        assert_eq!(parse_stat("42 (cut off"), None);
    }

    #[test]
    fn descendants_are_found_at_every_depth_and_parents_come_first() {
        let all = [
            process(5, 4),
            process(4, 2),
            process(3, 1),
            process(2, 1),
            process(9, 8),
        ];
        let pids: Vec<i32> = descendants(&all, 1).iter().map(|found| found.pid).collect();
        assert_eq!(pids.len(), 4);
        let place = |pid| pids.iter().position(|&found| found == pid);
        assert!(place(2) < place(4) && place(4) < place(5), "{pids:?}");
        assert!(!pids.contains(&9));
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(descendants(&[process(2, 3), process(3, 2)], 2).len(), 1);
    }

    #[test]
    fn this_process_is_in_the_list() {
        let all = all().expect("Linux has /proc");
        assert!(all.iter().any(|process| process.pid == own()));
    }

    #[test]
    fn a_process_that_is_gone_has_ended() {
        // No kernel gives out so high a number. (A child would be seen by the watchdog's test.)
        assert!(wait_for_end(i32::MAX, Duration::ZERO).expect("it can be asked"));
    }
}
