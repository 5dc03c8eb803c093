//! Where an object, the program or a library, is in memory.

use std::ops::Range;
use std::path::PathBuf;

/// Where an object lies in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    /// Its code: its executable segments.
    pub(crate) code: Range<usize>,
    /// What can be read of it and does not change once the program runs.
    pub(crate) constants: Vec<Range<usize>>,
    /// From the first constant to the last one.
    pub(crate) span: Range<usize>,
    /// The path by which it was loaded, if it is not the main executable.
    pub(crate) shared: Option<PathBuf>,
}

/// An object that has functions for pools, but not this crate's code. It is never unloaded.
#[derive(Debug)]
pub(crate) struct OtherImage {
    /// Which build of which object it is, as far as [`TAG_BITS`](Self::TAG_BITS) say it.
    pub(crate) tag: u64,
    pub(crate) image: Image,
}

impl OtherImage {
    pub(crate) const TAG_BITS: u32 = 33;
}
