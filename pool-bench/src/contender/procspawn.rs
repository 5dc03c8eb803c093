//! The rival in Rust: procspawn.

use std::collections::VecDeque;

use anyhow::{Result, anyhow};
use procspawn::{JoinHandle, Pool};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Local, Role, Runner};
use crate::spin::{Pace, Spin, even_item, spin};
use crate::task::{echo_bytes, echo_floats, spin_all, square, square_all};

/// A pool of procspawn as a runner. It has no `map`: its user would cut the items into chunks,
/// four for each worker, as Python's pool does.
pub struct Procspawn {
    pool: Pool,
    workers: usize,
}

/// procspawn 1.0.2.
#[must_use]
pub fn procspawn(pace: Pace, workers: usize) -> Local<Procspawn> {
    Local::new("procspawn", Role::Rival, pace, workers, |workers| {
        let pool = Pool::new(workers).map_err(|error| anyhow!("procspawn: {error}"))?;
        let runner = Procspawn { pool, workers };
        // Its workers start in the background; each must have answered before the pool counts as
        // built.
        let handles: Vec<_> = (0..workers)
            .map(|x| runner.pool.spawn(x as u64, square))
            .collect();
        handles
            .into_iter()
            .try_for_each(|handle| join(handle).map(drop))?;
        Ok(runner)
    })
}

/// As many tasks as are on their way at once: each holds several descriptors.
const WINDOW: usize = 128;

impl Procspawn {
    fn chunked<T, R>(&self, items: Vec<T>, function: fn(Vec<T>) -> Vec<R>) -> Result<Vec<R>>
    where
        T: Serialize + DeserializeOwned + Clone + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let size = items.len().div_ceil(4 * self.workers).max(1);
        let handles: Vec<_> = items
            .chunks(size)
            .map(|chunk| self.pool.spawn(chunk.to_vec(), function))
            .collect();
        let mut results = Vec::with_capacity(items.len());
        for handle in handles {
            results.extend(join(handle)?);
        }
        Ok(results)
    }
}

fn join<R: Serialize + DeserializeOwned>(handle: JoinHandle<R>) -> Result<R> {
    handle.join().map_err(|error| anyhow!("procspawn: {error}"))
}

impl Runner for Procspawn {
    fn apply(&self, x: u64) -> Result<u64> {
        join(self.pool.spawn(x, square))
    }

    fn apply_async(&self, n: u64) -> Result<Vec<u64>> {
        let handles: Vec<_> = (0..n).map(|x| self.pool.spawn(x, square)).collect();
        handles.into_iter().map(join).collect()
    }

    fn map_squares(&self, n: u64) -> Result<Vec<u64>> {
        self.chunked((0..n).collect(), square_all)
    }

    fn map_spins(&self, items: Vec<Spin>) -> Result<Vec<u64>> {
        self.chunked(items, spin_all)
    }

    fn imap_spins(&self, steps: u64, visit: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let mut items = (0_u64..).map(|index| even_item(index, steps));
        let mut waiting: VecDeque<_> = items
            .by_ref()
            .take(WINDOW)
            .map(|item| self.pool.spawn(item, spin))
            .collect();
        while let Some(handle) = waiting.pop_front() {
            if !visit(join(handle)?) {
                break;
            }
            waiting.extend(items.next().map(|item| self.pool.spawn(item, spin)));
        }
        waiting
            .into_iter()
            .try_for_each(|handle| join(handle).map(drop))
    }

    fn echo_bytes(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        join(self.pool.spawn(bytes, echo_bytes))
    }

    fn echo_floats(&self, floats: Vec<f64>) -> Result<Vec<f64>> {
        join(self.pool.spawn(floats, echo_floats))
    }
}
