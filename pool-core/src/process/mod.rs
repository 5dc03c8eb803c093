//! What is known of a process: which worker it is, how it ended, whether it was forked, and the
//! children that nobody reaps.

pub(crate) mod code;
pub(crate) mod exit_status;
pub(crate) mod fork;
pub(crate) mod machine;
pub(crate) mod oom_killer;
#[cfg(unix)]
pub(crate) mod orphans;
pub(crate) mod worker_info;
pub(crate) mod zombie;
