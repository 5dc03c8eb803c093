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
mod sandbox;
mod soak;
mod storm;
mod victims;
mod waiting;
mod watchdog;
