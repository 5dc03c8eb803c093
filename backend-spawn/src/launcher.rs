//! How workers are started.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use procpool_core::{
    EnvironmentChanges, LaunchError, LaunchSpec, Launcher, PROTOCOL_VERSION, Region, WorkerHandle,
};

use crate::bootstrap_env::{BootstrapEnv, Launch};
use crate::hello::{Nonce, connection};
use crate::program::{Program, c_string};
use crate::sys::{self, Process};
use crate::worker_handle::SpawnWorkerHandle;

/// Starts workers by executing this program again, or another one that has the same code.
///
/// A worker has the program's command line and environment, the current folder, standard output
/// and error (unless the pool has others for it), and whatever descriptors the program has made
/// inheritable. Its standard input is empty, all its signals are at their defaults, and none is
/// blocked. Its `main` must begin with [`init`](crate::init()): see
/// [`check_ready`](crate::check_ready()). All that is needed for that must be there as long as the
/// pool lives: `/proc`, what loads the program, and its libraries. A program that changes its root
/// (`chroot`) can replace no worker unless they are there as well.
#[derive(Debug)]
pub struct SpawnLauncher {
    /// What is executed; or why it is not known.
    program: Result<Program, LaunchError>,
}

impl SpawnLauncher {
    /// A launcher of this program. It holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            program: Program::again(),
        }
    }

    pub(crate) fn of(program: Program) -> Self {
        Self {
            program: Ok(program),
        }
    }

    /// Starts the process. Returns when the program is executed.
    fn start(program: &Program, spec: &LaunchSpec, offer: &Offer) -> Result<Process, LaunchError> {
        if let Some(object) = &program.preloaded
            && !object.exists()
        {
            // The loader would go on without it.
            return Err(LaunchError::new(format!(
                "the file of this shared object, {}, is not there any more",
                object.display()
            )));
        }
        let prepared = || -> io::Result<_> {
            let mut streams = vec![(Above::new(offer.doorbell.as_fd())?, 0)];
            for (stream, number) in [(spec.stdout(), 1), (spec.stderr(), 2)] {
                if let Some(stream) = stream {
                    streams.push((Above::new(stream)?, number));
                }
            }
            let mut inherited = vec![
                Above::new(offer.memory.as_fd())?,
                Above::new(offer.hello.as_fd())?,
                Above::new(spec.tie())?,
            ];
            let mut launch = Launch {
                nonce: u128::from_le_bytes(offer.nonce),
                memory: sys::announce(inherited[0].as_fd())?,
                hello: sys::announce(inherited[1].as_fd())?,
                tie: sys::announce(inherited[2].as_fd())?,
                target: program.target,
                events: None,
            };
            if let Some(events) = spec.events() {
                let events = Above::new(events)?;
                launch.events = Some(sys::announce(events.as_fd())?);
                inherited.push(events);
            }
            let called = BootstrapEnv {
                version: PROTOCOL_VERSION,
                parent: procpool_core::own_pid(),
                doorbell: sys::inode(&offer.doorbell)?,
                launch: Some(launch),
            };
            Ok((
                streams,
                inherited,
                environment(program, spec.environment(), &called)?,
            ))
        };
        let (streams, inherited, environment) = prepared().map_err(cannot_prepare)?;
        let streams: Vec<_> = streams.iter().map(|(it, n)| (it.as_fd(), *n)).collect();
        let inherited: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
        Process::start(
            &program.path,
            &program.arguments,
            &environment,
            &streams,
            &inherited,
        )
        .map_err(|error| cannot_execute(program, error))
    }
}

impl Default for SpawnLauncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Launcher for SpawnLauncher {
    fn backend(&self) -> &'static str {
        "spawn"
    }

    fn changes_environment(&self) -> bool {
        sys::CHANGES_ENVIRONMENT
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        let program = self.program.as_ref().map_err(LaunchError::clone)?;
        let (region, memory) = Region::create(spec.region_bytes()).map_err(|error| {
            LaunchError::new("cannot make the memory that a worker shares with its parent")
                .caused_by(error)
        })?;
        spec.prepare(&region);
        let (doorbell, theirs) = sys::make_doorbell().map_err(cannot_prepare)?;
        let nonce = sys::random().map_err(cannot_prepare)?;
        let (hello, to_hello) = connection().map_err(cannot_prepare)?;
        let offer = Offer {
            nonce,
            memory,
            hello: to_hello,
            doorbell: theirs.into(),
        };
        let process = Self::start(program, spec, &offer)?;
        let remedy = program.remedy.clone();
        let link = SpawnWorkerHandle::new(process, doorbell, region, hello, nonce, remedy);
        Ok(Box::new(link))
    }
}

/// What a worker gets from its parent and nobody else, as the parent has it until the worker is
/// started.
struct Offer {
    nonce: Nonce,
    memory: OwnedFd,
    hello: OwnedFd,
    doorbell: OwnedFd,
}

/// A descriptor that is none of the standard three, where it would be in the way of what a worker
/// has there. It may be one if the program has closed them.
enum Above<'a> {
    As(BorrowedFd<'a>),
    Copied(OwnedFd),
}

impl<'a> Above<'a> {
    fn new(descriptor: BorrowedFd<'a>) -> io::Result<Self> {
        Ok(if descriptor.as_raw_fd() > 2 {
            Self::As(descriptor)
        } else {
            Self::Copied(sys::duplicate(descriptor)?)
        })
    }
}

impl AsFd for Above<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::As(descriptor) => *descriptor,
            Self::Copied(descriptor) => descriptor.as_fd(),
        }
    }
}

/// The program's environment with these changes, and with what calls a worker.
fn environment(
    program: &Program,
    changes: &EnvironmentChanges,
    called: &BootstrapEnv,
) -> io::Result<Vec<CString>> {
    let called = called.to_string();
    let variables = program.environment(changes).into_iter();
    let variables = variables
        .filter(|(name, _)| name != BootstrapEnv::VARIABLE)
        .chain([(BootstrapEnv::VARIABLE.into(), called.into())]);
    let joined = |(name, value): (OsString, OsString)| {
        let text = [name.as_bytes(), b"=", value.as_bytes()].concat();
        c_string(OsStr::from_bytes(&text).to_owned())
    };
    variables.map(joined).collect()
}

fn cannot_prepare(error: io::Error) -> LaunchError {
    LaunchError::new("cannot prepare to start a worker").caused_by(error)
}

/// How Linux calls this program's own file.
const EXECUTABLE: &str = "/proc/self/exe";

fn cannot_execute(program: &Program, error: io::Error) -> LaunchError {
    if error.raw_os_error().is_none() {
        // What names its call comes after the execution.
        return LaunchError::new("cannot watch a worker's process").caused_by(error);
    }
    let path = program.path.to_string_lossy();
    if path != EXECUTABLE {
        return LaunchError::new(format!(
            "cannot execute {path} by posix_spawn (clone, setpgid, dup3, execve)"
        ))
        .caused_by(error);
    }
    if error.kind() == io::ErrorKind::NotFound && std::fs::symlink_metadata(EXECUTABLE).is_err() {
        return LaunchError::new(format!(
            "there is no {EXECUTABLE} here, by which workers are started: mount /proc, also \
             under a root that the program changes to (chroot), or use a ForkPool, whose workers \
             need no file"
        ))
        .caused_by(error);
    }
    let why = match error.kind() {
        io::ErrorKind::PermissionDenied => " (this process's user may not execute its file)",
        io::ErrorKind::NotFound => {
            " (what loads it, such as ld-linux.so, is not there: under a root that the program \
             changes to (chroot), have that and its libraries, or use a ForkPool, whose workers \
             need no file)"
        }
        _ => "",
    };
    LaunchError::new(format!(
        "cannot execute this program ({EXECUTABLE}) again by posix_spawn (clone, setpgid, dup3, \
         execve){why}"
    ))
    .caused_by(error)
}
