//! What the scenarios are run by, and what they have in common.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use procpool_core::{ExitStatus, LaunchError, LaunchSpec, Launcher, Readiness, WorkerHandle};
use procpool_spawn::SpawnLauncher;
use procpool_testing::again::Again;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A test.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What the process of the test does.
    pub(crate) parent: fn(),
    /// What its workers do before they come to `init`.
    pub(crate) worker: fn(),
    /// Whether they come to `init` at all.
    pub(crate) calls_init: bool,
    /// What the test's process has in its environment.
    variables: Vec<(&'static str, OsString)>,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, parent: fn()) -> Self {
        Self {
            name,
            parent,
            worker: || {},
            calls_init: true,
            variables: Vec::new(),
        }
    }

    pub(crate) fn worker(mut self, worker: fn()) -> Self {
        self.worker = worker;
        self
    }

    pub(crate) fn without_init(mut self) -> Self {
        self.calls_init = false;
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Runs it in a process of its own.
    pub(crate) fn run(&self) {
        let variables = self.variables.iter();
        let again = Again::new(self.name);
        let again = variables.fold(again, |again, (name, value)| again.env(name, value));
        again.lines();
    }
}

/// Whether this process was started by a launcher.
pub(crate) fn is_worker() -> bool {
    env::var_os("PROCPOOL_WORKER").is_some_and(|value| value != STALE)
}

/// A call of another process.
pub(crate) const STALE: &str = "1:4294967295:1:2:3/4:5/6";

/// Long enough for the slowest machine; reached only by a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn launch() -> Box<dyn WorkerHandle> {
    launch_with(4096)
}

pub(crate) fn launch_with(ring_bytes: usize) -> Box<dyn WorkerHandle> {
    try_launch(ring_bytes).expect("a launch")
}

pub(crate) fn try_launch(ring_bytes: usize) -> Result<Box<dyn WorkerHandle>, LaunchError> {
    let spec = LaunchSpec::for_tests(1, ring_bytes);
    SpawnLauncher::new().launch(&spec)
}

/// Does what the engine does, until the worker is reached.
pub(crate) fn reach(link: &mut dyn WorkerHandle) -> Result<(), LaunchError> {
    loop {
        assert!(
            is_readable(link.doorbell(), LONG),
            "the worker says nothing"
        );
        match link.poll_ready()? {
            Readiness::Ready => return Ok(()),
            Readiness::Pending => {}
            // It is closed, and the engine would ask again in a millisecond.
            Readiness::HungUp => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A worker that is there.
pub(crate) fn reached() -> Box<dyn WorkerHandle> {
    let mut link = launch();
    reach(&mut *link).expect("a worker");
    link
}

/// Why a worker is not reached.
pub(crate) fn failure() -> LaunchError {
    reach(&mut *launch()).expect_err("no worker")
}

/// Waits for a worker's death and reaps it.
pub(crate) fn reap(link: &mut dyn WorkerHandle) -> ExitStatus {
    assert!(
        is_readable(link.exit_fd().expect("a pidfd"), LONG),
        "it lives"
    );
    match link.reap() {
        Poll::Ready(status) => status,
        Poll::Pending => panic!("it is dead, and nobody traces it"),
    }
}

pub(crate) fn is_readable(descriptor: BorrowedFd<'_>, time: Duration) -> bool {
    let time = Timespec::try_from(time).expect("a short time");
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut polled, Some(&time)).expect("a poll") > 0
}

/// Blocks for good.
pub(crate) fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}

/// What the descriptors of a process are: of this one, if `"self"`.
pub(crate) fn descriptors(pid: &str) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.display().to_string())
        // The one that reads this folder.
        .filter(|target| !target.ends_with("/fd"))
        .collect()
}

/// The inodes of the memory files behind the regions that a process has mapped.
pub(crate) fn regions(pid: &str) -> Vec<String> {
    fs::read_to_string(format!("/proc/{pid}/maps"))
        .expect("a process")
        .lines()
        .filter(|line| line.contains(MEMORY))
        .map(|line| {
            line.split_ascii_whitespace()
                .nth(4)
                .expect("an inode")
                .to_owned()
        })
        .collect()
}

/// Says that a worker has the region that its link has.
pub(crate) fn assert_shares_region(link: &dyn WorkerHandle) {
    let pid = link.pid().expect("a process");
    let theirs = regions(&pid.to_string());
    assert_eq!(theirs.len(), 1);
    assert!(regions("self").contains(&theirs[0]), "a region of its own");
}

/// What the memory of a region is called.
pub(crate) const MEMORY: &str = "/memfd:procpool";

/// A place for files beside those of the workers; to be removed.
pub(crate) fn note(name: &str) -> PathBuf {
    env::temp_dir().join(name)
}
