//! `procpool-agent` itself.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use procpool_testing::procfs::{self, wait_until};
use rustix::process::Signal;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_procpool-agent");

/// The process, with a folder of its own. It is killed when this is dropped, and when this process
/// ends.
pub(crate) struct Agent {
    child: Child,
    folder: TempDir,
    _tie: OwnedFd,
}

impl Agent {
    /// It serves this server with these arguments.
    pub(crate) fn start(url: &str, arguments: &[&str]) -> Self {
        Self::start_with(url, arguments, &[])
    }

    /// The same with these variables.
    pub(crate) fn start_with(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("there is room");
        let child = Command::new(PROGRAM)
            .arg(url)
            .args(arguments)
            .arg("--cache")
            .arg(folder.path().join("programs"))
            .env("PROCPOOL_AGENT_PROCESSES", "1")
            .env("PROCPOOL_AGENT_NAME", "machine")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("it can be executed");
        let tie = procpool_core::tie_process(child.id()).expect("it can be tied");
        Self {
            child,
            folder,
            _tie: tie,
        }
    }

    /// Where its programs are.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("text")
    }

    pub(crate) fn wait_until_it_says(&self, text: &str) {
        self.wait_until_it_says_times(text, 1);
    }

    pub(crate) fn wait_until_it_says_times(&self, text: &str, times: usize) {
        wait_until(|| self.log().matches(text).count() >= times);
    }

    /// The programs that it has executed and that have not ended.
    pub(crate) fn programs(&self) -> Vec<u32> {
        procfs::children(self.child.id())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        procfs::signal(self.child.id(), signal);
    }

    /// Waits for its end.
    pub(crate) fn status(&mut self) -> ExitStatus {
        self.child.wait().expect("it is a child")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("procpool-agent has said:\n{}", self.log());
        }
    }
}

/// Runs it to its end: whether that was well, and what it has printed and said.
pub(crate) fn run(arguments: &[&OsStr]) -> (bool, String, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .env_remove("PROCPOOL_AGENT")
        .stdin(Stdio::null())
        .output()
        .expect("it can be executed");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.success(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A new key: its public part, and the file with its seed.
pub(crate) fn new_key(folder: &Path, name: &str) -> (String, PathBuf) {
    let file = folder.join(name);
    let (is_well, public, said) = run(&["new-key".as_ref(), file.as_ref()]);
    assert!(is_well, "{said}");
    (public.trim().to_owned(), file)
}
