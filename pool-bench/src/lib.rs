//! How fast the pools are: against the physical floor, a loop, threads, and the pools of others.
//!
//! The program `compare` (`cargo run --release -p procpool-bench -- compare`) runs all of them
//! interleaved, so that a machine whose speed drifts is as unfair to each, and writes a report. The
//! benches (`cargo bench -p procpool-bench`) run the same workloads under criterion, one contender
//! after the other.
//!
//! - A [`Workload`](workload::Workload) is *what* is done; it asks each role for a
//!   [`Job`](job::Job) of a size that fits it, since some are ten thousand times slower than
//!   others. Times are per item.
//! - A [`Contender`](contender::Contender) is *who* does it. The floors are contenders too.
//! - Whoever runs a job checks its results. A wrong one ends the run.

pub mod baseline;
pub mod compare;
pub mod contender;
pub mod curve;
pub mod floor;
pub mod format;
pub mod job;
pub mod machine;
pub mod measure;
pub mod record;
pub mod report;
pub mod roster;
pub mod scale;
pub mod serve;
pub mod spin;
pub mod statistics;
pub mod target;
pub mod task;
pub mod tree;
pub mod workload;
