//! See the files.

mod action;
mod backend;
mod call;
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
mod procfs;
mod sandbox;
mod soak;
#[path = "../../../conformance/src/stacks.rs"]
mod stacks;
mod storm;
mod victims;
mod waiting;
mod watchdog;
