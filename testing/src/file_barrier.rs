//! Places where tests and tasks meet, which share nothing but files.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::procfs::wait_until;

/// A list that tasks in any process add lines to.
pub struct Tally {
    folder: TempDir,
}

impl Tally {
    /// Without a line yet.
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tally = Self { folder };
        fs::write(tally.ticket(), "").expect("the tally can be made");
        tally
    }

    /// What a task must know to [`add`].
    pub fn ticket(&self) -> String {
        let path = self.folder.path().join("tally");
        path.to_str().expect("the path is text").to_owned()
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.ticket()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The lines so far, each of which is a number.
    ///
    /// # Panics
    /// When one is not.
    pub fn numbers(&self) -> Vec<u32> {
        let lines = self.lines();
        lines
            .iter()
            .map(|line| line.parse().expect("a number"))
            .collect()
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines().len()
    }
}

/// Adds a line to the [`Tally`] with this ticket. When that is gone, nobody counts any more.
///
/// It makes no file: a task that is still under way when its test ends would make one in a folder
/// that is just being removed, and the folder would stay.
pub fn add(ticket: &str, line: impl std::fmt::Display) {
    let mut file = match OpenOptions::new().append(true).open(ticket) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => panic!("the tally cannot be opened: {error}"),
    };
    // One write, so that the lines of several processes do not mix.
    file.write_all(format!("{line}\n").as_bytes())
        .expect("the tally can be written");
}

/// How many lines a tally, or the arrivals of a gate, have, by its ticket.
pub fn lines(ticket: &str) -> usize {
    let text = fs::read_to_string(ticket).unwrap_or_default();
    text.lines().count()
}

/// A gate that tasks wait at until the test opens it.
pub struct Gate {
    arrivals: Tally,
}

impl Gate {
    /// One that is closed.
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let arrivals = Tally::new();
        fs::write(door(&arrivals.ticket()), "").expect("the gate can be made");
        Self { arrivals }
    }

    /// What a task must know to [`pass`].
    pub fn ticket(&self) -> String {
        self.arrivals.ticket()
    }

    /// The processes of the tasks that have come to the gate so far.
    pub fn arrivals(&self) -> Vec<u32> {
        let lines = self.arrivals.lines();
        lines
            .iter()
            .map(|line| line.parse().expect("a process identifier"))
            .collect()
    }

    /// Waits until this many tasks have come to the barrier, and says which processes they are in.
    pub fn wait_for(&self, tasks: usize) -> Vec<u32> {
        wait_until(|| self.arrivals.count() >= tasks);
        self.arrivals()
    }

    /// Lets them pass, and all who come later.
    pub fn open(&self) {
        open(&self.ticket());
    }
}

/// Opens the gate with this ticket: its door is taken away, which makes no file either.
pub fn open(ticket: &str) {
    match fs::remove_file(door(ticket)) {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("the gate stays shut: {error}"),
        _ => {}
    }
}

/// Waits at the gate with this ticket until it is open, or gone.
pub fn pass(ticket: &str) {
    add(ticket, std::process::id());
    let door = door(ticket);
    wait_until(|| !door.exists());
}

fn door(ticket: &str) -> PathBuf {
    PathBuf::from(format!("{ticket}.shut"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_comes_late_does_not_keep_the_folder() {
        for _ in 0..200 {
            let tally = Tally::new();
            let ticket = tally.ticket();
            let folder = tally.folder.path().to_owned();
            let late = std::thread::spawn({
                let folder = folder.clone();
                move || {
                    while folder.exists() {
                        add(&ticket, "late");
                        open(&ticket);
                    }
                }
            });
            wait_until(|| tally.count() > 3);
            drop(tally);
            assert!(!folder.exists());
            late.join().expect("a late task is not an error");
        }
    }
}
