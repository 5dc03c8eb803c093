//! Launches that succeed.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc;
use procpool_core::{
    Backend, BuildError, ExitStatus, LaunchError, LaunchSpec, Launcher, PoolBuilder, Readiness,
    WorkerHandle,
};
use procpool_spawn::{SpawnLauncher, check_ready};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};

use crate::harness::{
    LONG, MEMORY, STALE, Scenario, assert_shares_region, descriptors, is_readable, is_worker,
    launch, launch_with, reach, reached, reap, regions, sleep, try_launch,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("a_worker_is_reached", a_worker_is_reached),
        Scenario::new("several_start_at_once", several_start_at_once),
        Scenario::new("nothing_is_held_but_bell_and_pidfd", nothing_is_held),
        Scenario::new("memory_that_is_not_used_is_not_taken", memory_is_not_taken),
        Scenario::new("a_hundred_launches_leave_nothing", a_hundred_launches),
        Scenario::new(
            "a_program_may_have_threads_before_main",
            a_worker_is_reached,
        )
        .worker(start_thread),
        Scenario::new("a_call_of_another_process_is_ignored", check_is_passed)
            .variable("PROCPOOL_WORKER", STALE),
        Scenario::new("a_program_that_called_init_is_ready", check_is_passed),
        Scenario::new("few_descriptors_are_no_panic", few_descriptors),
        Scenario::new("a_lack_of_descriptors_passes", lack_of_descriptors),
        Scenario::new("a_lost_ipc_channel_costs_no_launch", lost_ipc_channel),
        Scenario::new("a_worker_without_ipc_channel_says_so", no_ipc_channel)
            .worker(lose_ipc_channel),
        Scenario::new("an_answer_is_heard_although_its_time_is_over", late_answer),
    ]
}

fn a_worker_is_reached() {
    let launcher = SpawnLauncher::new();
    assert_eq!(launcher.backend(), "spawn");
    assert!(launcher.notifier().is_none());

    let mut link = launch();
    let pid = link.pid().expect("a process");
    assert_ne!(pid, std::process::id());
    let spec = LaunchSpec::for_tests(1, 4096);
    assert_eq!(link.region().bytes(), spec.region_bytes());
    reach(&mut *link).expect("a worker");
    assert_eq!(link.poll_ready().expect("still there"), Readiness::Ready);
    assert_eq!(link.pid(), Some(pid));

    link.kill();
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
    assert_eq!(reap(&mut *link), ExitStatus::Signal(9));
    link.kill();
}

fn several_start_at_once() {
    let mut links: Vec<_> = (0..8).map(|_| launch()).collect();
    for link in links.iter_mut().rev() {
        reach(&mut **link).expect("a worker");
    }
}

fn nothing_is_held() {
    // Those that the runner of the tests has made inheritable, standard input, output and error.
    let before = descriptors("self").len();
    // The two ends of what ties the workers of all tests to this process; a bell, and the socket
    // for descriptors.
    drop(LaunchSpec::for_tests(1, 4096));
    let links = [reached(), reached()];
    assert_eq!(descriptors("self").len(), before + 4 + 2 * links.len());
    assert_eq!(regions("self").len(), links.len());
    for link in &links {
        let pid = link.pid().expect("a process").to_string();
        assert_shares_region(&**link);
        let held = descriptors(&pid);
        // The doorbell.
        assert_eq!(held.len(), before + 1, "{held:?}");
        assert_eq!(held[0], "/dev/null");
        assert!(held[3].starts_with("pipe:"), "{held:?}");
        let group = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let group = group
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(2));
        assert_eq!(group, Some(&*pid));
    }
}

fn memory_is_not_taken() {
    const BYTES: usize = 16 << 20;
    let mut link = launch_with(BYTES);
    reach(&mut *link).expect("a worker");
    // Address, permissions, offset, device, inode, name; then lines with what there is of it.
    let maps = fs::read_to_string("/proc/self/smaps").expect("this process");
    let (_, region) = maps.split_once(MEMORY).expect("a region");
    let number = |name: &str| -> usize {
        let (_, rest) = region.split_once(name).expect("a line");
        let number = rest.split_ascii_whitespace().next().expect("a number");
        number.parse().expect("a number")
    };
    let spec = LaunchSpec::for_tests(1, BYTES);
    assert_eq!(number("Size:") * 1024, spec.region_bytes());
    assert!(number("Rss:") <= 4, "{region}");
}

fn a_hundred_launches() {
    // The allocator keeps something from the first time.
    drop(reached());
    until_nobody_is_left();
    let before = (descriptors("self"), regions("self"));
    for _ in 0..100 {
        drop(reached());
    }
    until_nobody_is_left();
    assert_eq!((descriptors("self"), regions("self")), before);
}

/// A worker that the system takes long to take down is left to a later launch, with its pidfd: only
/// without such a one it is known what this process holds.
fn until_nobody_is_left() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let started = Instant::now();
    while !matches!(waitid(WaitId::All, options), Err(Errno::CHILD)) {
        assert!(started.elapsed() < LONG, "a child is not reaped");
        drop(reached());
    }
}

/// Whatever was missing for the first launch, and for all before the last one.
fn lack_of_descriptors() {
    // The tie of the tests has two descriptors; nothing else may come before the lack.
    drop(LaunchSpec::for_tests(1, 4096));
    let held = descriptors("self").len() as u64;
    let maximum = Some(held + 30);
    for spare in 0..20 {
        let current = Some(held + 1 + spare);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a lower limit");
        if let Err(error) = try_launch(4096) {
            assert!(error.to_string().contains("os error 24"), "{error}");
        }
    }
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a limit");
    drop(reached());
}

/// Uses ipc-channel for the first time at a moment without descriptors, as somebody else in this
/// process may do: it can never be used again.
fn lose_ipc_channel() {
    let limit = getrlimit(Resource::Nofile);
    let (sender, receiver) = ipc::bytes_channel().expect("sockets");
    let current = Some(0);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).expect("a lower limit");
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..2 {
        std::panic::catch_unwind(AssertUnwindSafe(|| sender.send(&[1]))).expect_err("a panic");
        std::panic::catch_unwind(AssertUnwindSafe(|| receiver.try_recv())).expect_err("a panic");
        setrlimit(Resource::Nofile, limit).expect("a limit");
    }
    drop(std::panic::take_hook());
}

fn lost_ipc_channel() {
    lose_ipc_channel();
    drop(reached());
}

fn no_ipc_channel() {
    let error = reach(&mut *launch()).expect_err("it cannot say hello");
    assert!(error.to_string().contains("socketpair"), "{error}");
    assert!(!error.is_missing_init(), "{error}");
}

/// Starts its second worker only when the first one has answered and its time is over, as if the
/// program had been stopped in between.
#[derive(Debug)]
struct Stopped {
    launcher: SpawnLauncher,
    first: Option<(OwnedFd, Instant)>,
}

const LIMIT: Duration = Duration::from_secs(4);

impl Launcher for Stopped {
    fn backend(&self) -> &'static str {
        self.launcher.backend()
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        if let Some((doorbell, launched)) = &self.first {
            assert!(is_readable(doorbell.as_fd(), LONG), "no answer");
            while launched.elapsed() <= LIMIT {
                std::thread::sleep(LIMIT.saturating_sub(launched.elapsed()));
            }
        }
        let link = self.launcher.launch(spec)?;
        let doorbell = link.doorbell().try_clone_to_owned().expect("a descriptor");
        self.first.get_or_insert((doorbell, Instant::now()));
        Ok(link)
    }
}

impl Backend for Stopped {
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
        Ok(Box::new(self))
    }
}

fn late_answer() {
    let backend = Stopped {
        launcher: SpawnLauncher::new(),
        first: None,
    };
    let builder = PoolBuilder::with_backend(backend).processes(2);
    let pool = builder.launch_timeout(LIMIT).build();
    drop(pool.expect("both have answered"));
}

/// As the constructors of some C libraries do.
fn start_thread() {
    thread::spawn(|| sleep());
}

fn check_is_passed() {
    assert!(!is_worker());
    assert_eq!(check_ready(), Ok(()));
}

fn few_descriptors() {
    drop(reached());
    let limit = descriptors("self").len() as u64 + 1;
    for spare in 0..12 {
        let (current, maximum) = (Some(limit + spare), Some(limit + 20));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a lower limit");
        // Whether it works is a matter of numbers. It is the other scenarios' that it can; this
        // one's, that nothing is said on standard error if not.
        match try_launch(4096) {
            Ok(mut link) => match reach(&mut *link) {
                Ok(()) => assert!(spare > 2),
                Err(error) => assert!(!error.is_missing_init(), "{error}"),
            },
            Err(error) => assert!(error.to_string().contains("os error 24"), "{error}"),
        }
    }
}
