//! Processes, as `/proc` shows them, and those of a pool.

use procpool::Pool;
pub use procpool_testing::procfs::*;

/// The process identifiers of a pool's workers that are up.
pub fn workers(pool: &impl Pool) -> Vec<u32> {
    let workers = pool.stats().workers;
    workers.iter().map(|worker| worker.pid()).collect()
}
