//! `cargo xtask ci`: everything that a change must pass.

mod alarms;
mod examples;
mod leftovers;
mod packages;
mod pipeline;
mod steps;

pub(crate) use pipeline::{Options, run};
