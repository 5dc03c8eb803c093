//! Threads in place of processes: rayon.

use std::sync::mpsc;

use anyhow::Result;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Local, Role, Runner};
use crate::spin::{Pace, Spin, spin};
use crate::task::square;

/// A pool of threads as a runner.
pub struct Rayon(ThreadPool);

/// rayon, with a pool of its own.
#[must_use]
pub fn rayon(pace: Pace, workers: usize) -> Local<Rayon> {
    Local::new("rayon", Role::Threads, pace, workers, |workers| {
        Ok(Rayon(
            ThreadPoolBuilder::new().num_threads(workers).build()?,
        ))
    })
}

impl Runner for Rayon {
    fn apply(&self, x: u64) -> Result<u64> {
        Ok(self.0.install(|| square(x)))
    }

    fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
        let receivers: Vec<_> = (0..n)
            .map(|x| {
                let (sender, receiver) = mpsc::sync_channel(1);
                self.0.spawn(move || {
                    // An error means that nobody waits any more.
                    let _ = sender.send(square(x));
                });
                receiver
            })
            .collect();
        receivers
            .into_iter()
            .map(|receiver| Ok(receiver.recv()?))
            .collect()
    }

    fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
        Ok(self
            .0
            .install(|| (0..n).into_par_iter().map(square).collect()))
    }

    fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
        Ok(self.0.install(|| items.into_par_iter().map(spin).collect()))
    }
}
