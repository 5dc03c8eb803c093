//! What a backend writes and is given: how a worker process is started and reached, and the
//! settings of a pool.

pub(crate) mod config;
mod initializer;
pub(crate) mod launcher;
pub(crate) mod lifecycle_options;
mod pin;
pub(crate) mod tie;
pub(crate) mod worker_options;
