//! The errors of tasks and of pools.

pub(crate) mod build_error;
pub(crate) mod flatten;
pub(crate) mod hint;
pub(crate) mod launch_error;
pub(crate) mod queue_full;
pub(crate) mod remote_error;
pub(crate) mod task_error;
