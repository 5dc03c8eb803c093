//! What a reader sees of a comparison.

pub mod axis;
pub mod chart;
pub mod file;
pub mod html;
pub mod table;
