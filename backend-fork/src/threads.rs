//! How many threads this process has.

use std::io;

/// The kernel's `PF_EXITING`: the thread has left user space for good.
const EXITING: u32 = 4;

/// Counts the threads that run or may run code of this process.
///
/// A thread that was joined may still be listed for a moment, while the kernel tears it down. It is
/// not counted: it has been marked as exiting before whoever joined it was woken.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn count() -> io::Result<usize> {
    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read(task?.path().join("stat")) {
            Ok(stat) if is_exiting(&String::from_utf8_lossy(&stat)) => {}
            // Gone since the folder was read.
            Err(error) if is_gone(&error) => {}
            Ok(_) => count += 1,
            Err(error) => return Err(error),
        }
    }
    if count == 0 {
        // This one is always there.
        return Err(io::Error::other("the system names no thread"));
    }
    Ok(count)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Reads the flags in a thread's `stat`: `tid (name) state ppid pgrp session tty tpgid flags ...`,
/// where the name may contain anything.
fn is_exiting(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    fields
        .split_ascii_whitespace()
        .nth(6)
        .and_then(|flags| flags.parse::<u32>().ok())
        .is_some_and(|flags| flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn reads_the_flags_behind_any_name() {
        assert!(!is_exiting("7 (a) R 1 7 7 0 -1 4194368 0 0"));
        assert!(is_exiting("7 (a) R 1 7 7 0 -1 4194372 0 0"));
        assert!(is_exiting("7 (a ) 1 2 3 4 5 6 0) R 1 7 7 0 -1 4 0 0"));
        assert!(!is_exiting("7 (a ) 1 2 3 4 5 6 4) R 1 7 7 0 -1 0 0 0"));
        assert!(!is_exiting(""));
        assert!(!is_exiting("7 (a) R 1"));
    }

    #[test]
    fn counts_threads_that_run() {
        let before = count().expect("/proc is there");
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        // Other tests come and go as well, so only the least can be said.
        assert!(before >= 1);
        assert!(count().expect("/proc is there") >= 2);
        drop(stop);
        let _ = thread.join();
    }
}
