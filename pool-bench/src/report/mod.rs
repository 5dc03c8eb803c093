//! What a reader sees of a comparison.

pub mod file;
pub mod html;
pub mod table;
