//! Memory that parent and worker share: the region of a worker, its two rings, and the frames and
//! records in them.

pub(crate) mod buffer;
pub(crate) mod build_identity;
pub(crate) mod item_timing;
pub(crate) mod last_panic;
pub(crate) mod protocol;
pub(crate) mod region;
pub(crate) mod ring;
