//! The pools of this workspace.

use std::fs::OpenOptions;
use std::path::Path;
#[cfg(feature = "cluster")]
use std::time::Duration;

use anyhow::{Context, Result, ensure};
#[cfg(feature = "cluster")]
use procpool::ClusterPool;
use procpool::{ForkPool, ForkServer, Pool, Sandbox, SerialPool, SpawnPool};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Local, Role, Runner};
use crate::spin::{Pace, Spin, even_item, spin};
use crate::task::{block, echo_bytes, echo_floats, square};
use crate::tree::resident_bytes;

/// A pool of ours as a runner.
pub struct OwnPool<P>(pub(super) P);

/// ForkPool, on this server or else forked from this very program.
#[must_use]
pub fn fork(pace: Pace, workers: usize, server: Option<ForkServer>) -> Local<OwnPool<ForkPool>> {
    Local::new("ForkPool", Role::Ours, pace, workers, move |workers| {
        let builder = ForkPool::builder().processes(workers);
        let builder = match &server {
            Some(server) => builder.fork_server(server),
            None => builder,
        };
        Ok(OwnPool(builder.build()?))
    })
}

/// SpawnPool.
#[must_use]
pub fn spawn(pace: Pace, workers: usize) -> Local<OwnPool<SpawnPool>> {
    Local::new("SpawnPool", Role::Ours, pace, workers, |workers| {
        Ok(OwnPool(SpawnPool::builder().processes(workers).build()?))
    })
}

/// ForkPool, whose workers are in a strict sandbox.
#[must_use]
pub fn confined_fork(pace: Pace, workers: usize, server: ForkServer) -> Local<OwnPool<ForkPool>> {
    Local::new("sandbox, fork", Role::Ours, pace, workers, move |workers| {
        let builder = ForkPool::builder().processes(workers).fork_server(&server);
        Ok(OwnPool(builder.sandbox(Sandbox::strict()).build()?))
    })
}

/// SpawnPool, whose workers are in a strict sandbox.
#[must_use]
pub fn confined_spawn(pace: Pace, workers: usize) -> Local<OwnPool<SpawnPool>> {
    Local::new("sandbox, spawn", Role::Ours, pace, workers, |workers| {
        let builder = SpawnPool::builder().processes(workers);
        Ok(OwnPool(builder.sandbox(Sandbox::strict()).build()?))
    })
}

/// ClusterPool: a server and two agents on this machine, which share its processors whatever number
/// of workers is asked for.
#[cfg(feature = "cluster")]
#[must_use]
pub fn cluster(pace: Pace) -> Local<OwnPool<ClusterPool>> {
    let contender = Local::new("ClusterPool", Role::Ours, pace, 0, |_| {
        Ok(OwnPool(two_agents()?))
    });
    contender.of_fixed_size()
}

#[cfg(feature = "cluster")]
pub(super) fn two_agents() -> Result<ClusterPool> {
    let pool = ClusterPool::local(2)?;
    let workers = pool.wait_for_processes(2, Duration::from_secs(20));
    ensure!(workers, "there are no agents after 20 s");
    Ok(pool)
}

/// SerialPool.
#[must_use]
pub fn serial_pool(pace: Pace) -> Local<OwnPool<SerialPool>> {
    Local::new("SerialPool", Role::Alone, pace, 1, |_| {
        Ok(OwnPool(SerialPool::new()))
    })
}

impl<P: Pool + Sync> Runner for OwnPool<P> {
    fn apply(&self, x: u64) -> Result<u64> {
        Ok(self.0.apply(square, x)?)
    }

    fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
        let handles: Vec<_> = (0..n).map(|x| self.0.apply_async(square, x)).collect();
        handles
            .into_iter()
            .map(|handle| Ok(handle.get()?))
            .collect()
    }

    fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
        Ok(self.0.map(square, 0..n)?)
    }

    fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
        Ok(self.0.map(spin, items)?)
    }

    fn imap_spins(&self, steps: u64, visit: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let items = (0_u64..).map(move |index| even_item(index, steps));
        for result in self.0.imap(spin, items) {
            if !visit(result?) {
                break;
            }
        }
        Ok(())
    }

    fn echo_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        Ok(self.0.apply(echo_bytes, bytes)?)
    }

    fn echo_floats(&self, floats: Vec<f64>) -> Result<Vec<f64>> {
        Ok(self.0.apply(echo_floats, floats)?)
    }

    fn queue(&self, n: u64) -> Result<u64> {
        // What a first use allocates is not what a task costs.
        self.apply_async(n.min(1000))?;
        let gate = Gate::new()?;
        // Twice as many as workers: none is left over for the tasks that must wait.
        let blocked: Vec<_> = (0..2 * self.0.processes())
            .map(|_| self.0.apply_async(block, gate.path()))
            .collect();
        let mut handles = Vec::with_capacity(n as usize);
        let before = resident_bytes(None).context("our memory before")?;
        handles.extend((0..n).map(|x| self.0.apply_async(square, x)));
        let after = resident_bytes(None).context("our memory after")?;
        let open = gate.open()?;
        for handle in blocked {
            ensure!(handle.get()?, "a worker could not be blocked");
        }
        for (x, handle) in (0..).zip(handles) {
            super::runner::check_square(x, handle.get()?)?;
        }
        drop(open);
        Ok(after.saturating_sub(before))
    }
}

/// A named pipe at which workers wait.
struct Gate {
    folder: tempfile::TempDir,
}

impl Gate {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("gate");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(Self { folder })
    }

    fn path(&self) -> String {
        let path: &Path = self.folder.path();
        path.join("gate").to_string_lossy().into_owned()
    }

    /// Lets everybody through for as long as the file is open. For both reading and writing, so
    /// that it does not wait itself when nobody is there.
    fn open(&self) -> Result<std::fs::File> {
        let file = OpenOptions::new().read(true).write(true).open(self.path());
        file.context("the gate cannot be opened")
    }
}
