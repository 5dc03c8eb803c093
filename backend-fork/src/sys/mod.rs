//! The system calls for which there is no safe wrapper.

mod exit;
mod fork;
mod signals;

pub(crate) use exit::{flush_streams, leave};
pub(crate) use fork::fork;
pub(crate) use signals::{block_signals, reset_signals};
