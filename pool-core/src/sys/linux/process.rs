//! What is asked and said of whole processes.
#![allow(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io;

use rustix::fs::{readlink, stat};
use rustix::io::Errno;

use crate::sys::unix::own_pid;

/// What a thread is started by, for an error's text.
pub(crate) const THREAD_CALL: &str = "clone3 (a thread)";

/// Where `/proc` shows the process with this number. `None`: nowhere. There is no `/proc`, since
/// this process has changed its root; or it shows another namespace, where the number is somebody
/// else's; or it hides others' processes (`hidepid`) and this one has changed its user.
pub(crate) fn in_proc(pid: u32) -> Option<String> {
    let own = readlink("/proc/self", Vec::new()).ok()?;
    let folder = format!("/proc/{pid}");
    let counts_as_we_do = own.to_str().ok()?.parse() == Ok(own_pid());
    (counts_as_we_do && stat(&folder).is_ok()).then_some(folder)
}

/// Whether the process with this number is seen to be taken down, or dead: its memory goes before
/// its descriptors do, and both before anybody hears of its death.
pub(crate) fn is_leaving(pid: u32) -> bool {
    in_proc(pid).is_some_and(|folder| {
        let program = readlink(format!("{folder}/exe"), Vec::new());
        matches!(program, Err(Errno::NOENT | Errno::SRCH))
    })
}

/// Gives variables of the environment other values, or removes them, in this order. `false`: this
/// process has several threads, and another one may be reading the environment; nothing was
/// changed.
pub fn change_environment(changes: &[(OsString, Option<OsString>)]) -> io::Result<bool> {
    // Each thread is a folder, and a folder has two links more than it has folders.
    if stat("/proc/self/task")?.st_nlink != 3 {
        return Ok(false);
    }
    for (name, value) in changes {
        // SAFETY: this is the process's only thread, as was seen above, and starts no other one in
        // here. So nobody else reads or writes the environment, by whatever means.
        unsafe {
            match value {
                Some(value) => env::set_var(name, value),
                None => env::remove_var(name),
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_leaving_only_if_it_is_seen_to_be() {
        assert!(!is_leaving(own_pid()));
        // It may live and be hidden.
        assert!(!is_leaving(u32::MAX));
        #[allow(clippy::disallowed_methods, reason = "a process to look at")]
        let mut child = Command::new("true").spawn().expect("a process");
        // It is dead, and nobody reaps it meanwhile.
        while !is_leaving(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it is ours");
        assert!(!is_leaving(child.id()), "it is not seen any more");
    }
}
