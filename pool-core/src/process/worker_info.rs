//! Which worker of a pool a process is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// A worker process of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerInfo {
    number: u32,
    generation: u32,
    pid: u32,
    seed: u64,
    machine: Option<Machine>,
}

impl WorkerInfo {
    /// For a pool of your own: the number in its name, how many workers were in its place before
    /// it, and its process identifier.
    #[must_use]
    pub fn new(number: u32, generation: u32, pid: u32) -> Self {
        Self {
            number,
            generation,
            pid,
            seed: 0,
            machine: None,
        }
    }

    /// The same worker with this [`seed`](Self::seed).
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same worker on the machine of this name.
    #[must_use]
    pub fn with_machine(mut self, machine: &str) -> Self {
        self.machine = Some(machine.into());
        self
    }

    /// The machine that it is on, where that is another one.
    #[must_use]
    pub fn machine(&self) -> Option<&str> {
        self.machine.as_deref()
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
    /// # use procpool_core as procpool;
    /// use std::cell::Cell;
    /// use procpool::worker;
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
        write!(f, "PoolWorker-{} (pid {})", self.number, self.pid)?;
        match &self.machine {
            Some(machine) => write!(f, " on {machine}"),
            None => Ok(()),
        }
    }
}

pub(crate) fn name(number: u32) -> String {
    format!("PoolWorker-{number}")
}
