//! A backend of somebody else's, in safe code alone, that breaks the contract of a launcher: the
//! engine notices, whatever it does, and the program goes on.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use procpool_core::{
    Backend, BuildError, ExitStatus, LaunchError, LaunchSpec, Launcher, PoolBuilder, Readiness,
    Region, WorkerHandle,
};

/// Which region a launcher gives for each worker.
type Choose = fn(&mut Vec<Arc<Region>>, &LaunchSpec) -> Arc<Region>;

struct Careless {
    choose: Choose,
    regions: Vec<Arc<Region>>,
}

impl Launcher for Careless {
    fn backend(&self) -> &'static str {
        "careless"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        let (doorbell, mut ring) = pipe().expect("descriptors");
        ring.write_all(&[1]).expect("a pipe has room");
        let (death, life) = pipe().expect("descriptors");
        Ok(Box::new(Worker {
            region: (self.choose)(&mut self.regions, spec),
            doorbell,
            _ring: ring,
            death,
            life: Some(life),
        }))
    }
}

/// A worker that does nothing, and dies when it is killed.
struct Worker {
    region: Arc<Region>,
    doorbell: PipeReader,
    _ring: PipeWriter,
    death: PipeReader,
    life: Option<PipeWriter>,
}

impl WorkerHandle for Worker {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        Ok(Readiness::Ready)
    }

    fn pid(&self) -> Option<u32> {
        Some(1)
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.death.as_fd())
    }

    fn kill(&mut self) {
        self.life = None;
    }

    fn reap(&mut self) -> Poll<ExitStatus> {
        Poll::Ready(ExitStatus::Signal(9))
    }
}

/// What is wrong with all workers of a [`Slow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No poller takes what tells of their deaths.
    Unwatchable,
    Panics,
}

/// A launcher of workers that are not worth much, and that take their time to be gone.
struct Slow {
    fault: Fault,
    /// How many were dropped that were not gone.
    left: Arc<AtomicUsize>,
}

impl Launcher for Slow {
    fn backend(&self) -> &'static str {
        "slow"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        let (doorbell, mut ring) = pipe().expect("descriptors");
        ring.write_all(&[1]).expect("a pipe has room");
        let region = region(spec.region_bytes());
        spec.prepare(&region);
        Ok(Box::new(SlowWorker {
            fault: self.fault,
            region,
            doorbell,
            _ring: ring,
            death: File::open("/proc/self/exe").expect("a file"),
            asked: 0,
            left: self.left.clone(),
        }))
    }
}

struct SlowWorker {
    fault: Fault,
    region: Arc<Region>,
    doorbell: PipeReader,
    _ring: PipeWriter,
    death: File,
    asked: u32,
    left: Arc<AtomicUsize>,
}

/// How often it is asked whether it is gone until it is.
const ASKED: u32 = 6;

impl WorkerHandle for SlowWorker {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        assert_ne!(self.fault, Fault::Panics, "on purpose");
        Ok(Readiness::Ready)
    }

    fn pid(&self) -> Option<u32> {
        Some(1)
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.fault == Fault::Unwatchable).then(|| self.death.as_fd())
    }

    fn kill(&mut self) {}

    fn reap(&mut self) -> Poll<ExitStatus> {
        self.asked += 1;
        if self.asked < ASKED {
            return Poll::Pending;
        }
        Poll::Ready(ExitStatus::Signal(9))
    }
}

impl Drop for SlowWorker {
    fn drop(&mut self) {
        if self.asked < ASKED {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A launcher is its own backend.
macro_rules! backend {
    ($($launcher:ty),*) => {
        $(impl Backend for $launcher {
            fn into_launcher(self) -> Result<Box<dyn Launcher>, BuildError> {
                Ok(Box::new(self))
            }
        })*
    };
}

backend!(Slow, Careless, Undecided);

/// A pool of such workers cannot be built, and leaves none.
fn assert_outlived(fault: Fault, word: &str) {
    let left = Arc::default();
    let launcher = Slow {
        fault,
        left: Arc::clone(&left),
    };
    let error = PoolBuilder::with_backend(launcher)
        .processes(3)
        .build()
        .map(|_| ());
    let error = error.unwrap_err();
    assert!(error.to_string().contains(word), "{error}");
    assert_eq!(left.load(Ordering::Relaxed), 0);
}

#[test]
fn a_worker_that_cannot_be_watched_is_outlived() {
    assert_outlived(Fault::Unwatchable, "epoll_ctl");
}

#[test]
fn workers_are_outlived_without_a_supervisor() {
    assert_outlived(Fault::Panics, "on purpose");
}

fn region(bytes: usize) -> Arc<Region> {
    Arc::new(Region::create(bytes).expect("memory").0)
}

fn assert_refused(choose: Choose) {
    let regions = Vec::new();
    let error = PoolBuilder::with_backend(Careless { choose, regions })
        .processes(2)
        .build()
        .map(|_| ())
        .unwrap_err();
    let words = "has given a region that is not of the size";
    assert!(error.to_string().contains(words), "{error}");
}

/// A launcher whose one worker has closed its doorbell, and takes a while to die.
struct Undecided {
    asked: Arc<AtomicU32>,
}

struct Dying {
    worker: Worker,
    asked: Arc<AtomicU32>,
    begun: Instant,
}

impl Launcher for Undecided {
    fn backend(&self) -> &'static str {
        "undecided"
    }

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn WorkerHandle>, LaunchError> {
        let choose: Choose = |_, spec| region(spec.region_bytes());
        let (doorbell, ring) = pipe().expect("descriptors");
        let (death, life) = pipe().expect("descriptors");
        drop(ring);
        let (_, ring) = pipe().expect("descriptors");
        let worker = Worker {
            region: choose(&mut Vec::new(), spec),
            doorbell,
            _ring: ring,
            death,
            life: Some(life),
        };
        Ok(Box::new(Dying {
            worker,
            asked: self.asked.clone(),
            begun: Instant::now(),
        }))
    }
}

impl WorkerHandle for Dying {
    fn region(&self) -> Arc<Region> {
        self.worker.region()
    }

    fn doorbell(&self) -> BorrowedFd<'_> {
        self.worker.doorbell()
    }

    fn poll_ready(&mut self) -> Result<Readiness, LaunchError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.begun.elapsed() < Duration::from_millis(200) {
            return Ok(Readiness::HungUp);
        }
        Err(LaunchError::new("that is why"))
    }

    fn pid(&self) -> Option<u32> {
        self.worker.pid()
    }

    fn exit_fd(&self) -> Option<BorrowedFd<'_>> {
        self.worker.exit_fd()
    }

    fn kill(&mut self) {
        self.worker.kill();
    }

    fn reap(&mut self) -> Poll<ExitStatus> {
        self.worker.reap()
    }
}

/// A closed doorbell is readable forever; the engine asks ever more seldom what that means.
#[test]
fn a_closed_bell_is_asked_about_now_and_then() {
    let asked = Arc::new(AtomicU32::new(0));
    let launcher = Undecided {
        asked: asked.clone(),
    };
    let error = PoolBuilder::with_backend(launcher)
        .processes(1)
        .build()
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("that is why"), "{error}");
    // After 1, 2, 4... milliseconds.
    let asked = asked.load(Ordering::Relaxed);
    assert!((2..20).contains(&asked), "{asked}");
}

#[test]
fn a_region_of_another_size_is_refused() {
    assert_refused(|_, spec| region(spec.region_bytes() / 2));
    assert_refused(|_, spec| region(spec.region_bytes() * 2));
}

#[test]
fn a_region_for_two_workers_is_refused() {
    assert_refused(|regions, spec| {
        if regions.is_empty() {
            let region = region(spec.region_bytes());
            spec.prepare(&region);
            regions.push(region);
        }
        regions[0].clone()
    });
}
