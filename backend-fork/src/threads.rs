//! Which threads this process has.

use std::io;

/// The kernel's `PF_EXITING`: the thread has left user space for good.
const EXITING: u32 = 4;

/// The names of the threads, beside the calling one, that run or may run code of this process. The
/// kernel keeps 15 bytes of a name.
///
/// A thread that was joined may still be listed for a moment, while the kernel tears it down. It is
/// not among them: it has been marked as exiting before the joining thread was woken.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn others() -> io::Result<Vec<String>> {
    // As `/proc` calls it, which may be that of another namespace.
    let own = std::fs::read_link("/proc/thread-self")?;
    let mut others = Vec::new();
    // This one is always there.
    let mut is_listed = false;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?;
        if Some(task.file_name().as_os_str()) == own.file_name() {
            is_listed = true;
            continue;
        }
        match std::fs::read(task.path().join("stat")) {
            Ok(stat) => {
                let stat = String::from_utf8_lossy(&stat);
                if !is_exiting(&stat) {
                    others.push(name(&stat).to_owned());
                }
            }
            // Gone since the folder was read.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if is_listed {
        Ok(others)
    } else {
        Err(io::Error::other("the system does not name this thread"))
    }
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

/// The name in a thread's `stat`.
fn name(stat: &str) -> &str {
    let begun = stat.split_once('(').map_or("", |(_, rest)| rest);
    begun.rsplit_once(')').map_or("", |(name, _)| name)
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
        assert_eq!(name("7 (a) R 1 7"), "a");
        assert_eq!(name("7 (a ) (b) R 1 7"), "a ) (b");
        assert_eq!((name(""), name("7 (a"), name("7 a) R")), ("", "", ""));
    }

    #[test]
    fn names_threads_that_run() {
        let (stop, stopped) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let thread = std::thread::Builder::new().name("a thread whose name is long".into());
        let thread = thread.spawn(move || {
            let _ = begin.send(());
            stopped.recv()
        });
        begun.recv().expect("it runs");
        // Other tests come and go as well.
        let others = others().expect("/proc is there");
        let is_named = others.iter().any(|name| name == "a thread whose ");
        assert!(is_named, "{others:?}");
        drop(stop);
        let _ = thread.expect("it can be started").join();
    }
}
