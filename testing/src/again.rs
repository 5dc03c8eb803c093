//! The test program, run again as another one: for tests about a program's beginning and end.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::procfs;

/// Says which program to be.
pub const VARIABLE: &str = "TEST_PROGRAM";
/// Names one run of a program, and with it all processes that come of it.
pub const MARK: &str = "TEST_MARK";

/// The program that this process is to be, if it is not the tests.
pub fn asked_for() -> Option<String> {
    env::var(VARIABLE).ok()
}

/// A program about to be run, with a temporary folder of its own.
pub struct Again {
    command: Command,
    mark: String,
    temporary: TempDir,
}

impl Again {
    /// The program of this name, to be run.
    pub fn new(name: &str) -> Self {
        let this = env::current_exe().expect("this program has a path");
        Self::at(&this, name)
    }

    /// The same from another file, which is this program.
    pub fn at(file: &Path, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let temporary = tempfile::tempdir().expect("a temporary folder");
        #[allow(clippy::disallowed_methods, reason = "this very program")]
        let mut command = Command::new(file);
        command
            .env(VARIABLE, name)
            .env(MARK, &mark)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null());
        Self {
            command,
            mark,
            temporary,
        }
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&OsStr]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Runs it to its end, and that of all processes which have its output, and says what it
    /// has printed. It must succeed and leave nothing behind.
    pub fn lines(mut self) -> Vec<String> {
        let output = self.command.output().expect("this program can be run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{}:\n{stderr}{}",
            output.status,
            text(&output)
        );
        assert_eq!(stderr, "", "it says something to its user");
        assert_eq!(self.remains(), [] as [u32; 0], "processes are left behind");
        assert_eq!(self.files(), [] as [PathBuf; 0], "files are left behind");
        text(&output).lines().map(str::to_owned).collect()
    }

    /// Starts it, as the leader of a process group. What it says to its user is not heard.
    pub fn start(mut self) -> Started {
        self.command.stdout(Stdio::piped()).stderr(Stdio::null());
        self.command.process_group(0);
        let mut child = self.command.spawn().expect("this program can be run");
        let stdout = child.stdout.take().expect("it was asked for");
        Started {
            child,
            lines: BufReader::new(stdout),
            again: self,
        }
    }

    /// The same with something to read.
    pub fn start_with_input(mut self) -> (Started, ChildStdin) {
        self.command.stdin(Stdio::piped());
        let mut started = self.start();
        let stdin = started.child.stdin.take().expect("it was asked for");
        (started, stdin)
    }

    /// The living processes that come of it.
    fn remains(&self) -> Vec<u32> {
        procfs::with_variable(MARK, &self.mark)
    }

    /// What is in its temporary folder.
    fn files(&self) -> Vec<PathBuf> {
        let entries = self.temporary.path().read_dir().expect("it is there");
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Nobody, unless the test has failed because of them.
        for pid in self.remains() {
            procfs::signal(pid, Signal::KILL);
        }
    }
}

fn text(output: &Output) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&output.stdout)
}

/// A program that runs.
pub struct Started {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    again: Again,
}

impl Started {
    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it can be read");
        line.trim_end().to_owned()
    }

    /// The living processes that come of it, itself included.
    pub fn processes(&self) -> Vec<u32> {
        self.again.remains()
    }

    /// The process itself.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn status(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }

    /// Kills it, alone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// What is in its temporary folder.
    pub fn files(&self) -> Vec<PathBuf> {
        self.again.files()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A test that has failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
