//! An agent that a test may kill.

use std::env;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use procpool_testing::machine::Machine;
use procpool_testing::procfs;
use rustix::process::Signal;

/// The process. It is killed when this is dropped, and when this process ends.
pub(crate) struct Agent {
    child: Child,
    _tie: OwnedFd,
}

impl Agent {
    /// This program, as an agent of this name with this many workers.
    pub(crate) fn start(url: &str, name: &str, processes: usize) -> Self {
        let this = env::current_exe().expect("this program has a path");
        Self::run(Command::new(this), url, name, processes)
    }

    /// The same from another file.
    pub(crate) fn start_file(file: &Path, url: &str, name: &str) -> Self {
        Self::run(Command::new(file), url, name, 1)
    }

    /// The same on another machine.
    pub(crate) fn start_on(machine: &Machine, url: &str, name: &str, processes: usize) -> Self {
        let this = env::current_exe().expect("this program has a path");
        Self::run(machine.command(this), url, name, processes)
    }

    /// The same as whatever else the command says.
    pub(crate) fn run(mut command: Command, url: &str, name: &str, processes: usize) -> Self {
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        procfs::signal(self.pid(), signal);
    }

    /// Kills it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is a child");
        self.child.wait().expect("it is a child");
    }

    /// Waits for its end.
    pub(crate) fn status(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }

    /// Waits for its end, and returns what it has said to its user, if that was piped.
    pub(crate) fn last_words(&mut self) -> String {
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
