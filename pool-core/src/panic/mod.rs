//! Panics: caught, described by their message, place and backtrace, and left behind by a process
//! that ends by one.

pub(crate) mod backtrace;
pub(crate) mod catch;
pub(crate) mod foreign_text;
mod payload;
pub(crate) mod report;
pub(crate) mod unwind;
