//! What is asked and said of whole processes, where there is no `/proc`.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::sleep::nap;

/// What a thread is started by, for an error's text.
pub(crate) const THREAD_CALL: &str = "pthread_create";

/// Where `/proc` shows a process: nowhere.
pub(crate) fn in_proc(_pid: u32) -> Option<String> {
    None
}

/// Whether the child with this number is dead, or dies within a moment: its descriptors are closed
/// before anybody hears of its death. A process that is somebody else's child is not.
pub(crate) fn is_leaving(pid: u32) -> bool {
    const MOMENT: u32 = 20;
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else {
        return false;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    for _ in 0..MOMENT {
        match waitid(WaitId::Pid(pid), options) {
            Ok(Some(_)) => return true,
            Ok(None) | Err(Errno::INTR) => nap(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
    false
}

/// Changes no variable of the environment, which another thread may be reading: nobody says how
/// many there are.
pub fn change_environment(_changes: &[(OsString, Option<OsString>)]) -> io::Result<bool> {
    Ok(false)
}
