//! See the files.

mod action;
#[cfg_attr(
    not(all(feature = "cluster", feature = "spawn")),
    allow(dead_code, reason = "without a cluster there are none")
)]
mod agents;
mod backend;
mod call;
#[cfg(all(feature = "cluster", feature = "spawn"))]
mod cluster;
pub(crate) mod command;
mod effects;
mod holdings;
mod job;
mod killer;
mod ledger;
mod load;
pub(crate) mod meddling;
mod notes;
mod oracle;
mod plan;
mod pools;
mod sandbox;
mod soak;
mod storm;
mod victims;
mod waiting;
mod watchdog;
