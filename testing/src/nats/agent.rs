//! An agent that a test may kill.

use std::env;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::Signal;

use crate::machine::Machine;
use crate::procfs;

/// The process. It is killed when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    _tie: OwnedFd,
}

impl Agent {
    /// This program, as an agent of this name with this many workers.
    ///
    /// # Panics
    /// When it cannot be executed.
    #[must_use]
    pub fn start(url: &str, name: &str, processes: usize) -> Self {
        Self::run(this_program(), url, name, processes)
    }

    /// The same from another file, with one worker.
    ///
    /// # Panics
    /// When it cannot be executed.
    #[must_use]
    pub fn start_file(file: &Path, url: &str, name: &str) -> Self {
        #[allow(clippy::disallowed_methods, reason = "a build of the test program")]
        let command = Command::new(file);
        Self::run(command, url, name, 1)
    }

    /// This program on another machine.
    ///
    /// # Panics
    /// When it cannot be executed.
    #[must_use]
    pub fn start_on(machine: &Machine, url: &str, name: &str, processes: usize) -> Self {
        let this = env::current_exe().expect("this program has a path");
        Self::run(machine.command(this), url, name, processes)
    }

    /// The same as whatever else the command says.
    ///
    /// # Panics
    /// When it cannot be executed.
    #[must_use]
    pub fn run(mut command: Command, url: &str, name: &str, processes: usize) -> Self {
        let child = command
            .env("PROCPOOL_AGENT", url)
            .env("PROCPOOL_AGENT_NAME", name)
            .env("PROCPOOL_AGENT_PROCESSES", processes.to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("this program can be executed");
        let tie = procpool_core::tie_process(child.id()).expect("it can be tied");
        Self { child, _tie: tie }
    }

    /// Its process. Its workers are below that.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal: TERM has it leave.
    pub fn signal(&self, signal: Signal) {
        procfs::signal(self.pid(), signal);
    }

    /// Kills it at once, as a crash does.
    ///
    /// # Panics
    /// Never: it is a child.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Never: it is a child.
    pub fn status(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }

    /// How it has ended, if it has.
    ///
    /// # Panics
    /// Never: it is a child.
    pub fn try_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child")
    }

    /// Waits for its end, and returns what it has said to its user.
    ///
    /// # Panics
    /// When that was not piped, or it has left in peace.
    pub fn last_words(&mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut text).expect("text");
        assert!(!self.status().success(), "it has left in peace: {text}");
        text
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This very program, to be run once more.
fn this_program() -> Command {
    let this = env::current_exe().expect("this program has a path");
    #[allow(clippy::disallowed_methods, reason = "this very program")]
    Command::new(this)
}
