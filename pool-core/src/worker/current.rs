//! Who this process is.

use std::fmt;
use std::sync::{Arc, OnceLock, RwLock};

use crate::shm::region::Region;
use crate::sync::atomic::Ordering;

/// A worker process of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    number: u32,
    generation: u32,
    pid: u32,
    seed: u64,
}

impl WorkerInfo {
    pub(crate) fn new(number: u32, generation: u32, pid: u32) -> Self {
        Self {
            number,
            generation,
            pid,
            seed: 0,
        }
    }

    pub(crate) fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Its name, such as `PoolWorker-3`. A pool counts its workers from 1 and never uses a
    /// number again, so that a replacement has a name of its own.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.number)
    }

    /// The number in its name.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its process identifier.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How many workers had its slot before it: 0 for those that the pool began with.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A number for its random number generators, another one for each worker of each pool in each
    /// run of the program. The parent draws it when it starts the worker, and it stays the same as
    /// long as the worker lives.
    ///
    /// Forked workers inherit generators that were used before, and all draw the same numbers from
    /// them; an initializer seeds them anew.
    ///
    /// It is for simulations and the like, and no secret: it is in memory that the worker shares
    /// with its parent.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use pool_core::worker;
    ///
    /// thread_local!(static STATE: Cell<u64> = const { Cell::new(1) });
    ///
    /// /// The initializer.
    /// fn seed_generator(_: ()) {
    ///     // Outside of a worker (`SerialPool`), any seed will do.
    ///     let seed = worker::current().map_or(1, |worker| worker.seed());
    ///     STATE.set(seed);
    /// }
    /// # seed_generator(());
    /// # assert_eq!(STATE.get(), 1);
    /// ```
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl fmt::Display for WorkerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolWorker-{} (pid {})", self.number, self.pid)
    }
}

pub(crate) fn name(number: u32) -> String {
    format!("PoolWorker-{number}")
}

/// What this process knows of itself as a worker. A worker that was forked inside another one
/// replaces what it inherited.
struct Myself {
    info: WorkerInfo,
    region: Arc<Region>,
}

fn myself() -> &'static RwLock<Option<Myself>> {
    static MYSELF: OnceLock<RwLock<Option<Myself>>> = OnceLock::new();
    MYSELF.get_or_init(RwLock::default)
}

/// The worker that this process is; `None` in the parent and everywhere else.
///
/// ```
/// assert!(pool_core::worker::current().is_none());
/// ```
#[must_use]
pub fn current() -> Option<WorkerInfo> {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().map(|myself| myself.info.clone())
}

/// Whether the running task was cancelled: a long task asks now and then, and stops early. What
/// it then returns, nobody sees.
///
/// `false` outside of a worker.
#[must_use]
pub fn is_cancelled() -> bool {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().is_some_and(|myself| {
        let advice = &myself.region.words().advice;
        let cancelled = advice.cancelled.load(Ordering::Relaxed);
        cancelled != 0 && cancelled == myself.region.items_begun()
    })
}

/// A name for the item that runs; 0 outside of a worker.
pub(crate) fn running_item() -> u64 {
    let myself = myself().read().unwrap_or_else(|poison| poison.into_inner());
    myself.as_ref().map_or(0, |myself| {
        // A worker of this worker may have inherited what is named by this.
        u64::from(myself.info.pid) << 32 | myself.region.items_begun() & u64::from(u32::MAX)
    })
}

/// Gives the region of the worker that this process is; not that of one which it is a mere copy of.
pub(crate) fn with_region(body: impl FnOnce(&Region)) {
    if let Ok(myself) = myself().try_read()
        && let Some(myself) = &*myself
        && myself.info.pid == std::process::id()
    {
        body(&myself.region);
    }
}

/// This process is a worker from now on.
pub(super) fn become_worker(info: WorkerInfo, region: Arc<Region>) {
    if crate::sync::IS_MODEL {
        // The workers of a model are threads: none of them is the process.
        return;
    }
    *myself()
        .write()
        .unwrap_or_else(|poison| poison.into_inner()) = Some(Myself { info, region });
}
