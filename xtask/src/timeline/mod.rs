//! `cargo xtask timeline`: draws a trace that a pool has written (see `Pool::trace_to`).

mod color;
mod draw;
mod lanes;
mod read;
mod svg;

pub(crate) use run::{Options, run};

mod run;
