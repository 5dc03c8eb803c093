//! A backend of somebody else's, in safe code alone, that breaks the contract of a launcher: the
//! engine notices, whatever it does, and the program goes on.
#![forbid(unsafe_code)]

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use pool_core::{
    Advance, Engine, ExitStatus, LaunchError, LaunchSpec, Launcher, Link, PoolConfig, Reaped,
    Region,
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

    fn launch(&mut self, spec: &LaunchSpec) -> Result<Box<dyn Link>, LaunchError> {
        let (bell, mut ring) = pipe().expect("descriptors");
        ring.write_all(&[1]).expect("a pipe has room");
        let (death, life) = pipe().expect("descriptors");
        Ok(Box::new(Worker {
            region: (self.choose)(&mut self.regions, spec),
            bell,
            _ring: ring,
            death,
            life: Some(life),
        }))
    }
}

/// A worker that does nothing, and dies when it is killed.
struct Worker {
    region: Arc<Region>,
    bell: PipeReader,
    _ring: PipeWriter,
    death: PipeReader,
    life: Option<PipeWriter>,
}

impl Link for Worker {
    fn region(&self) -> Arc<Region> {
        self.region.clone()
    }

    fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn advance(&mut self) -> Result<Advance, LaunchError> {
        Ok(Advance::Reached)
    }

    fn pid(&self) -> Option<u32> {
        Some(1)
    }

    fn death(&self) -> Option<BorrowedFd<'_>> {
        Some(self.death.as_fd())
    }

    fn kill(&mut self) {
        self.life = None;
    }

    fn reap(&mut self) -> Reaped {
        Reaped::Exited(ExitStatus::Signal(9))
    }
}

fn region(bytes: usize) -> Arc<Region> {
    Arc::new(Region::create(bytes).expect("memory").0)
}

fn assert_refused(choose: Choose) {
    let mut config = PoolConfig::default();
    config.set_processes(2);
    let regions = Vec::new();
    let error = Engine::start(config, Box::new(Careless { choose, regions }))
        .map(|_| ())
        .unwrap_err();
    let words = "has given a region that is not of the size";
    assert!(error.to_string().contains(words), "{error}");
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
