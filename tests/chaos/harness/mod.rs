//! See the files.

mod backend;
mod cage;
mod call;
pub(crate) mod command;
mod deed;
mod effects;
mod holdings;
mod job;
mod judge;
mod killer;
mod kin;
mod ledger;
mod load;
pub(crate) mod meddling;
mod notes;
mod plan;
mod pools;
mod soak;
#[path = "../../conformance/stacks.rs"]
mod stacks;
mod storm;
mod victims;
mod waiting;
mod watchdog;
