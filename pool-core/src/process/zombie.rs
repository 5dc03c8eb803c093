//! How a process ended that is dead and that nobody has reaped.

use std::fs;

use super::exit_status::ExitStatus;
use crate::sys;
use crate::sys::fd::{AsFd, AsRawFd};

/// How the process ended, before its parent has reaped it. `None`: that is not to be seen from
/// here, as of one that has been reaped, or that had other credentials.
///
/// `pidfd` is the process's, which was seen to have ended. Whoever may not see the status is shown
/// a zero, and so one that exited with code 0 is not known either.
pub(crate) fn exit_status(pid: u32, pidfd: impl AsFd) -> Option<ExitStatus> {
    let stat = fs::read(sys::in_proc(pid)? + "/stat").ok()?;
    let status = wait_status(&String::from_utf8_lossy(&stat))?;
    // If it has not been reaped by now, the number was its own before.
    is_unreaped(pid, pidfd).then_some(status)
}

/// Whether the process of a pidfd still has its number.
fn is_unreaped(pid: u32, pidfd: impl AsFd) -> bool {
    let number = pidfd.as_fd().as_raw_fd();
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
        return false;
    };
    let named = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    named.and_then(|named| named.trim().parse().ok()) == Some(pid)
}

/// Reads the last field of a dead process's `stat`, which is what `wait` tells.
fn wait_status(stat: &str) -> Option<ExitStatus> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if !matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    match fields.nth(48)?.parse::<i32>().ok()? {
        status if status & 0x7f != 0 => Some(ExitStatus::Signal(status & 0x7f)),
        status if status > 0 => Some(ExitStatus::Code(status >> 8 & 0xff)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

    use super::*;

    fn stat(state: &str, status: i32) -> String {
        format!("7 (a ) b) {state} {}{status}\n", "1 ".repeat(48))
    }

    #[test]
    fn what_the_system_writes_is_read() {
        assert_eq!(wait_status(&stat("Z", 9)), Some(ExitStatus::Signal(9)));
        assert_eq!(wait_status(&stat("Z", 134)), Some(ExitStatus::Signal(6)));
        assert_eq!(wait_status(&stat("Z", 7 << 8)), Some(ExitStatus::Code(7)));
        for none in [stat("Z", 0), stat("R", 9), "7 (a) Z 1".to_owned()] {
            assert_eq!(wait_status(&none), None, "{none}");
        }
    }

    #[test]
    #[cfg_attr(procpool_portable, ignore = "there is no `/proc` to look into")]
    fn a_process_is_asked_before_it_is_reaped() {
        #[allow(clippy::disallowed_methods, reason = "a process to look at")]
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(pidfd.as_fd()), options).unwrap();
        let status = exit_status(child.id(), &pidfd);
        assert_eq!(status, Some(ExitStatus::Code(7)));
        child.wait().unwrap();
        assert_eq!(exit_status(child.id(), &pidfd), None);
        // Its number may be another one's by then.
        assert!(!is_unreaped(child.id(), &pidfd));
    }
}
