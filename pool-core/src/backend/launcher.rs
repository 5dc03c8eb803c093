//! The seam between the engine and a backend: how one worker process is started and reached. The
//! order of the calls is in the documentation of [`Launcher`].

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use super::tie::Tie;
use crate::error::build_error::BuildError;
use crate::error::launch_error::LaunchError;
use crate::process::exit_status::ExitStatus;
use crate::shm::region::{Region, RingSizes};
use crate::sync::atomic::Ordering;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::worker::{EnvironmentChanges, ForkHook};

/// Starts worker processes: what a backend is.
///
/// All calls come from one thread, the pool's supervisor, which lives as long as the pool. (The
/// kernel's parent-death signal is tied to the thread that started a child, so no other thread
/// may start one.)
///
/// # How a worker starts and ends
/// 1. The engine makes a [`LaunchSpec`] and calls [`launch`](Self::launch). The backend makes a
///    [`Region`] of [`region_bytes`](LaunchSpec::region_bytes), has the specification
///    [prepare](LaunchSpec::prepare) it, makes the pipe that is the doorbell, and starts the
///    process.
/// 2. The worker binds itself to the tie, then serves the region.
/// 3. The engine asks [`poll_ready`](WorkerHandle::poll_ready) whenever the doorbell is readable,
///    until the worker is [`Ready`](Readiness::Ready). From then on both sides speak through the
///    region, and the backend has no part in it.
/// 4. The engine calls [`kill`](WorkerHandle::kill) if it must. When
///    [`exit_fd`](WorkerHandle::exit_fd) says that the process has died, it calls
///    [`reap`](WorkerHandle::reap) until that has the exit status, and drops the handle.
///
/// # Contract
/// - `launch` does not wait for the worker: it returns as soon as the process is on its way, and
///   whatever goes wrong afterwards is said by the [`WorkerHandle`].
/// - The worker has the same object as the parent: it runs the same executable, or has loaded the
///   same [shared object](crate::shared_object). Once it has the region and the doorbell, it
///   calls [`worker::serve`](crate::worker::serve), whose contract it keeps, and leaves the process
///   with the code that this returns.
/// - The worker dies with the parent, even with one killed by SIGKILL. It has two ties, since user
///   code cuts one easily: the parent-death signal, which the kernel clears when a process changes
///   its credentials, and the worker's end of [`LaunchSpec::tie`]. It gives that to
///   [`worker::bind_to_parent`](crate::worker::bind_to_parent) as soon as it leads its process
///   group, and before anything of the user's runs in it.
/// - The worker is the leader of a process group of its own: the terminal's Ctrl-C does not reach
///   it, and [`WorkerHandle::kill`] reaches what its tasks have started.
/// - The worker holds no descriptor of another worker's handle.
/// - The worker's standard output and standard error are [`LaunchSpec::stdout`] and
///   [`LaunchSpec::stderr`] where these are given, and otherwise the program's. Once the worker is
///   started, it alone has these descriptors, [`LaunchSpec::events`] and [`LaunchSpec::tie`]: no
///   other process does, and the parent keeps no copies.
pub trait Launcher: Send {
    /// The backend's name in messages: `"fork"`, `"spawn"`.
    fn backend(&self) -> &'static str;

    /// Whether it starts workers with [another environment](LaunchSpec::environment). If not, they
    /// change their own, as long as they have one thread.
    fn changes_environment(&self) -> bool {
        false
    }

    /// Starts one worker.
    ///
    /// # Errors
    /// When the system refuses what a worker needs.
    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError>;

    /// A descriptor that is readable when a [`WorkerHandle::reap`] that answered [`Poll::Pending`]
    /// should be asked again. Those that answered so are also asked now and then without that, ever
    /// more seldom. `None`: there is no such descriptor.
    fn notifier(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The parent's connection to one worker process.
///
/// Dropping it releases everything, and never waits longer than a moment. The engine drops it after
/// [`reap`](Self::reap), when the worker could not be started, or when the pool ends and the
/// worker, which was killed, does not die: then the backend reaps it later.
pub trait WorkerHandle: Send {
    /// The memory shared with the worker: made by [`Region::create`] for this launch alone, and
    /// prepared by [`LaunchSpec::prepare`].
    fn region(&self) -> Arc<Region>;

    /// The reading end of the worker's doorbell, a non-blocking pipe of which the worker alone
    /// holds the writing end. The engine waits for it to become readable, and leaves the reading to
    /// [`poll_ready`](Self::poll_ready). When that has answered [`Readiness::Ready`], only its
    /// hang-up is of interest: a worker that has closed it is replaced. (What a worker rings from
    /// then on, it finds in its [`tie`](LaunchSpec::tie), and the socket by which descriptors come
    /// and go.)
    fn doorbell(&self) -> BorrowedFd<'_>;

    /// Takes the next step of the bootstrap. Called whenever the doorbell is readable, until it
    /// answers [`Readiness::Ready`]; once it has answered [`Readiness::HungUp`], ever more seldom,
    /// and when the process has died. Never blocks: other tasks' deadlines are kept by the same
    /// thread.
    ///
    /// # Errors
    /// When the launch has failed; the worker is then killed and reaped, and the handle dropped.
    fn poll_ready(&mut self) -> Result<Readiness, LaunchError>;

    /// What may be the reason when a worker is not ready in time, and what to do about it: to be
    /// said in the error, which is one of a missing `procpool::init()` then. `None`: nothing that
    /// the backend knows of.
    fn why_silent(&self) -> Option<String> {
        None
    }

    /// The worker's process identifier, as soon as it is known, at the latest when
    /// it is [`Ready`](Readiness::Ready).
    fn pid(&self) -> Option<u32>;

    /// A descriptor that becomes readable when the process has died (a pidfd), known as soon as
    /// [`pid`](Self::pid) is.
    fn exit_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Kills the worker and its process group with SIGKILL. Does nothing to a process that was
    /// reaped, and never reaches one that merely got the same number later.
    ///
    /// Where the system refuses it (the worker or the parent has another user by now), there is
    /// nothing more to do: the engine cuts the [`tie`](LaunchSpec::tie) as well.
    fn kill(&mut self);

    /// Takes the exit status of a process that has died, killing what is left of its process
    /// group first. Never blocks: where the process is not dead, or the status is not to be had
    /// yet (it goes to a debugger first), it answers [`Poll::Pending`].
    fn reap(&mut self) -> Poll<ExitStatus>;
}

/// How far a launch is: the answer of [`WorkerHandle::poll_ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The worker has not answered yet.
    Pending,
    /// The doorbell says nothing any more, and it is not known yet what that means: something is
    /// about to die. The answer must change within a second or so.
    HungUp,
    /// The worker has the region, or is certain to get it.
    Ready,
}

/// What a [`Launcher`] needs to know about the worker that it is to start.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    pub(crate) number: u32,
    pub(crate) generation: u32,
    pub(crate) seed: u64,
    pub(crate) rings: RingSizes,
    pub(crate) environment: Arc<EnvironmentChanges>,
    pub(crate) outlets: Outlets,
    pub(crate) tie: Arc<OwnedFd>,
}

/// What a worker writes to, where that is not what the program writes to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlets {
    pub(crate) stdout: Option<Arc<OwnedFd>>,
    pub(crate) stderr: Option<Arc<OwnedFd>>,
    pub(crate) events: Option<Arc<OwnedFd>>,
    /// The most detailed events to forward; as in the region's words.
    pub(crate) max_level: u32,
}

impl LaunchSpec {
    /// How large the worker's region must be, in bytes.
    #[must_use]
    pub fn region_bytes(&self) -> usize {
        Region::bytes_for(self.rings)
    }

    /// A specification that no pool made, for the tests of a backend: its author can launch a
    /// worker with it. `ring_bytes` is the capacity of each of the two rings, a power of two.
    #[must_use]
    pub fn for_tests(number: u32, ring_bytes: usize) -> Self {
        Self {
            number,
            generation: 0,
            seed: 0,
            rings: RingSizes::both(ring_bytes),
            environment: Arc::default(),
            outlets: Outlets::default(),
            tie: tie_for_tests(),
        }
    }

    /// The worker's number, as in its name.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What is different in the worker's environment. Nothing, unless the launcher
    /// [makes the changes](Launcher::changes_environment).
    #[must_use]
    pub fn environment(&self) -> &EnvironmentChanges {
        &self.environment
    }

    /// What the worker's standard output is to be. `None`: the program's.
    #[must_use]
    pub fn stdout(&self) -> Option<BorrowedFd<'_>> {
        self.outlets.stdout.as_ref().map(AsFd::as_fd)
    }

    /// What the worker's standard error is to be. `None`: the program's.
    #[must_use]
    pub fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.outlets.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Where the worker's events go. Before it serves, the worker gives it to
    /// [`worker::forward_events_to`](crate::worker::forward_events_to). `None`: nowhere.
    #[must_use]
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.outlets.events.as_ref().map(AsFd::as_fd)
    }

    /// The worker's end of its second tie to the parent, which keeps the other end. The worker
    /// gives it to [`worker::bind_to_parent`](crate::worker::bind_to_parent).
    #[must_use]
    pub fn tie(&self) -> BorrowedFd<'_> {
        self.tie.as_fd()
    }

    /// Writes into a zero-filled region what the worker will find there. To be called once,
    /// before the worker can see the region.
    ///
    /// # Panics
    /// When the region is not of [`region_bytes`](Self::region_bytes).
    pub fn prepare(&self, region: &Region) {
        region.introduce(self.number, self.generation, self.rings);
        let seed = &region.words().identity.seed;
        seed.store(self.seed, Ordering::Relaxed);
        let max_level = &region.words().advice.max_level;
        max_level.store(self.outlets.max_level, Ordering::Relaxed);
    }

    /// The worker's name, such as `PoolWorker-3`. Numbers are never used again within a pool.
    #[must_use]
    pub fn name(&self) -> String {
        crate::process::worker_info::name(self.number)
    }
}

/// The tie of workers that no pool has started: it holds as long as this process. None of them has
/// anything to ring, or takes descriptors: the first one would have had them.
fn tie_for_tests() -> Arc<OwnedFd> {
    static TIE: OnceLock<(Tie, Arc<OwnedFd>)> = OnceLock::new();
    let (_, theirs) = TIE.get_or_init(|| {
        let (ours, theirs) = Tie::new().expect("the system has descriptors");
        for _bell_and_socket in 0..2 + usize::from(crate::sys::WAKES_BY_DESCRIPTOR) {
            let left = crate::sys::take_what_was_left(theirs.as_fd());
            drop(left.expect("it was left there"));
        }
        (ours, Arc::new(theirs))
    });
    Arc::clone(theirs)
}

/// How the workers of a pool are started, before there is a pool: the part of a
/// [`PoolBuilder`](crate::PoolBuilder) that each backend writes.
pub trait Backend {
    /// What starts the workers of one pool. It is asked for by `build`.
    ///
    /// # Errors
    /// When the program or the system lacks what this needs.
    fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError>;
}

/// A backend whose workers are executed: two options more.
#[doc(hidden)]
pub trait Executing: Backend {
    /// What is executed for each worker.
    fn set_program(&mut self, program: &OsStr);

    /// Arguments of the program, after those that were given before.
    fn add_args(&mut self, args: Vec<OsString>);
}

/// A backend whose workers are forked from a server: four options more.
#[doc(hidden)]
pub trait ForkServing: Backend {
    /// The handle of such a server.
    type Server;

    /// The server to fork from.
    fn set_fork_server(&mut self, server: &Self::Server);

    /// The server that is started has this as well, for its workers.
    fn after_fork(&mut self, hook: ForkHook);

    /// Only this stays open in the server that is started.
    fn keep_fds(&mut self, fds: &[BorrowedFd<'_>]);

    /// Lets a server be started although there are threads.
    ///
    /// # Safety
    /// No other thread holds a lock, or is in the middle of a change, that a task or the allocator
    /// could come upon in the copy.
    #[expect(unsafe_code, reason = "the caller takes the blame for the fork")]
    unsafe fn allow_threads(&mut self);
}
