//! A launcher whose workers are threads that can be killed at any of their steps.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;

use super::fake::{ModelPool, doorbell};
use crate::backend::config::PoolConfig;
use crate::backend::launcher::{LaunchSpec, Launcher, Readiness, WorkerHandle};
use crate::engine::Engine;
use crate::error::launch_error::LaunchError;
use crate::process::exit_status::ExitStatus;
use crate::shm::region::Region;
use crate::sync::thread::Builder;
use crate::sync::{Life, WasKilled};
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::{self, Event};
use crate::worker::ringer::Ringer;
use crate::worker::serve::serve_and_ring;

/// A worker's process.
struct Process {
    life: Arc<Life>,
    region: Region,
    exit: Mutex<Option<ExitStatus>>,
    /// Its pidfd.
    death: Event,
    lingers: Lingers,
}

/// What keeps a worker that was killed. It runs nothing any more in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Lingers {
    #[default]
    Not,
    /// It is not dead for a while.
    Alive,
    /// It is dead, and how is not known for a while.
    Unreaped,
}

/// That while.
const LONG: Duration = Duration::from_secs(1);

impl Process {
    fn kill(&self) {
        self.life.end();
        self.region.wake_all();
    }

    /// What its one thread does, and what the kernel does when that has ended.
    fn run(&self, region: Region, bell: OwnedFd, doorbell: OwnedFd) {
        self.life.live();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            assert_eq!(rustix::io::write(&doorbell, &[1]), Ok(1), "a pipe");
            sys::something_happened();
            let ringer = Ringer::new(Some(bell), doorbell);
            // SAFETY: the region is this process' alone, which is parent and worker; it was
            // prepared for this thread, and the engine has its other side.
            unsafe { serve_and_ring(region, ringer, None) }
        }));
        // This is the kernel's, who is not killed.
        Arc::new(Life::default()).live();
        // The doorbell is closed.
        sys::something_happened();
        let exit = match ended {
            Ok(code) => ExitStatus::Code(code),
            Err(payload) if payload.is::<WasKilled>() => ExitStatus::Signal(9),
            Err(payload) => resume_unwind(payload),
        };
        if exit == ExitStatus::Signal(9) && self.lingers != Lingers::Not {
            if self.lingers == Lingers::Unreaped {
                self.death.set();
            }
            let end = sys::now() + LONG;
            while sys::now() < end {
                sys::park_timeout(LONG);
            }
        }
        *self.exit.lock().expect("no panic") = Some(exit);
        self.death.set();
    }
}

struct ThreadLink {
    process: Arc<Process>,
    region: Arc<Region>,
    doorbell: OwnedFd,
}

impl WorkerHandle for ThreadLink {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        match rustix::io::read(&self.doorbell, &mut [0_u8; 8]) {
            Ok(0) => Err(LaunchError::new("the worker has closed its doorbell")),
            Err(Errno::AGAIN) => Ok(Readiness::Pending),
            Ok(_) => Ok(Readiness::Ready),
            Err(error) => Err(LaunchError::new("a doorbell cannot be read").caused_by(error)),
        }
    }

    fn pid(&self) -> Option<u32> {
        Some(1)
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.process.death.as_fd())
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn reap(&mut self) -> Poll<ExitStatus> {
        let exit = *self.process.exit.lock().expect("no panic");
        exit.map_or(Poll::Pending, Poll::Ready)
    }
}

/// The processes that a pool has started, for a killer.
#[derive(Clone, Default)]
pub(super) struct Processes(Arc<Mutex<Vec<Arc<Process>>>>, Lingers);

impl Processes {
    /// Such that linger when they are killed.
    pub(super) fn that_linger(lingers: Lingers) -> Self {
        Self(Arc::default(), lingers)
    }

    /// Kills one of those that were started last, some of which may be dead.
    pub(super) fn kill_one(&self) {
        let processes = self.0.lock().expect("no panic");
        let choice = shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 0..3);
        let process = processes.iter().rev().nth(choice).cloned();
        drop(processes);
        if let Some(process) = process {
            process.kill();
        }
    }
}

impl Launcher for Processes {
    fn backend(&self) -> &'static str {
        "model"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        let region = Region::for_model(spec.region_bytes());
        spec.prepare(&region);
        let theirs = region.again();
        let process = Arc::new(Process {
            life: Arc::default(),
            region: region.again(),
            exit: Mutex::default(),
            death: Event::new().expect("descriptors"),
            lingers: self.1,
        });
        let (hear, doorbell) = doorbell();
        let bell = sys::take_what_was_left(spec.tie()).expect("a bell");
        let body = process.clone();
        Builder::new()
            .name(spec.name())
            .spawn(move || body.run(theirs, bell, doorbell))
            .expect("a thread");
        self.0.lock().expect("no panic").push(process.clone());
        Ok(Box::new(ThreadLink {
            process,
            region: Arc::new(region),
            doorbell: hear,
        }))
    }
}

/// A pool whose processes are these. It is terminated when the engine is dropped.
pub(super) fn pool(config: PoolConfig, processes: &Processes) -> (Engine, Arc<ModelPool>) {
    let engine = Engine::start(config, Box::new(processes.clone())).expect("a pool");
    let executor = engine.executor().clone();
    (engine, Arc::new(ModelPool { executor }))
}

/// The smallest config: one worker, rings that hold two small frames.
pub(super) fn config(processes: usize) -> PoolConfig {
    let mut config = PoolConfig::default();
    config.set_processes(processes);
    config.workers.set_ring_capacity(128);
    config
}
