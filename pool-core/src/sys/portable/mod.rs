//! Parts of the system that each Unix has: `poll`, sockets, threads that sleep. They stand in for
//! Linux's where there is no Linux, and on Linux with `--cfg procpool_portable`, so that they are
//! tested where the tests are.
//!
//! What they cannot do as well: a poller looks at each of its sources for each wait; a worker's
//! sleep and a ring take two system calls each; a barrier is each side's own, so each item of a
//! chunk costs its worker a fence; a thread is what ties a worker to its parent; a worker's shared
//! memory is copied before anybody reads it; nothing is known of another process.

mod barrier;
mod bonds;
mod event;
mod fork_marks;
mod huge_pages;
mod memory_file;
mod pipes;
mod poller;
mod process;
mod processors;
mod random;
mod resident;
mod sealed;
mod sleep;
mod stack;

pub(crate) use barrier::{
    accept_barriers, accept_own_barriers, barrier_everywhere, barrier_here, has_barriers,
    has_own_barriers,
};
pub use bonds::{be_signalled_by, tie_process};
pub(crate) use bonds::{die_with_starter, is_dumpable, raise_oom_score, set_dumpable};
pub(crate) use event::{Event, ring_bell};
pub(crate) use fork_marks::fork_marks;
pub(crate) use huge_pages::expect_use;
pub(crate) use memory_file::{memory_file, memory_size};
#[cfg(feature = "tracing")]
pub(crate) use pipes::enlarge_pipe;
pub(crate) use pipes::pipe_size;
pub(crate) use poller::Poller;
pub use process::change_environment;
pub(crate) use process::{THREAD_CALL, in_proc, is_leaving};
pub(crate) use processors::{MOST_PROCESSORS, allowed_processors, run_on};
pub(crate) use random::{random_id, random_seed};
#[cfg(feature = "sandbox")]
pub(crate) use resident::keep_status;
pub(crate) use resident::{cpu_time, memory_counts_from_here, peak_rss, rss};
pub(crate) use sleep::{
    WAKES_BY_DESCRIPTOR, nap, sleep_until, sleep_while, tell_of_change, wait_for_change,
    wake_sleeper, wakeup,
};
pub(crate) use stack::stack_below;
