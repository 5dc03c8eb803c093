//! The system calls for which there is no safe wrapper.

mod descriptors;
mod exit;
mod fork;
mod group;
mod signals;

pub(crate) use descriptors::close_all_but;
pub(crate) use exit::flush_streams;
pub(crate) use fork::{fork, fork_sibling};
pub(crate) use group::kill_group_of;
pub(crate) use procpool_core::{leave, reset_signals};
pub(crate) use signals::block_signals;
