//! Lets the command `procpool` look into the pools of a running program.
//!
//! ```
//! use procpool_core as procpool;
//! # use procpool_inspect as inspect;
//! use procpool::{Pool, SerialPool};
//! use inspect::AllowInspection;
//!
//! let pool = SerialPool::new();
//! let inspection = pool.allow_inspection("squares")?;
//! pool.map(|x: u64| x * x, 0..10).unwrap();
//!
//! // What `procpool top` does, in another process of the same user.
//! let pools = inspect::pools(std::process::id())?;
//! let snapshot = pools[0].snapshot()?;
//! assert_eq!((&*snapshot.name, snapshot.stats.succeeded), ("squares", 10));
//! # drop(inspection);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Who can look
//! There is a socket for each pool as long as its [`Inspection`] lives. It is in a folder of the
//! user's, which nobody else can open, and it answers to the same user and to root alone. Who looks
//! sees counters, names of calls and stacks: no arguments and no results. Nothing can be changed.
//!
//! # What it costs
//! A thread that sleeps until somebody asks.

mod client;
mod folder;
mod server;

pub use client::{InspectedPool, pools};
pub use server::{AllowInspection, Inspection};

use procpool_core::{CallStatus, Stats, WorkerDump};
use serde::{Deserialize, Serialize};

/// How a pool is at a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the program calls the pool.
    pub name: String,
    /// How many tasks can run at the same time.
    pub processes: usize,
    /// What was counted so far.
    pub stats: Stats,
    /// What its workers are at, without their stacks.
    pub activity: Vec<WorkerDump>,
    /// How far its calls of many items are.
    pub calls: Vec<CallStatus>,
}

/// What can be asked: one line.
const SNAPSHOT: &str = "snapshot";
const DUMP: &str = "dump";

/// What is answered: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Answer<T> {
    /// This.
    Known(T),
    /// Nothing, for this reason.
    Refused(String),
}
