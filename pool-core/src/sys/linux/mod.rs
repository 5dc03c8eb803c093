//! What Linux alone has: each part of the system in a file of its own.

mod barrier;
mod bell;
mod bonds;
mod epoll;
mod event;
mod fork_marks;
mod futex;
mod huge_pages;
mod memory_file;
mod pipes;
mod process;
mod processors;
mod random;
mod resident;
mod sealed;
mod stack;
mod waiting;

pub(crate) use barrier::{
    accept_barriers, accept_own_barriers, barrier_everywhere, barrier_here, has_barriers,
    has_own_barriers,
};
pub(crate) use bell::ring_bell;
pub use bonds::{be_signalled_by, tie_process};
pub(crate) use bonds::{die_with_starter, is_dumpable, raise_oom_score, set_dumpable};
pub(crate) use epoll::Poller;
pub(crate) use event::Event;
pub(crate) use fork_marks::fork_marks;
pub(crate) use futex::{
    WAKES_BY_DESCRIPTOR, nap, sleep_until, sleep_while, tell_of_change, wait_for_change,
    wake_sleeper, wakeup,
};
pub(crate) use huge_pages::expect_use;
pub(crate) use memory_file::{memory_file, memory_size};
#[cfg(feature = "tracing")]
pub(crate) use pipes::enlarge_pipe;
pub(crate) use pipes::pipe_size;
pub use process::change_environment;
pub(crate) use process::{THREAD_CALL, in_proc, is_leaving};
pub(crate) use processors::{MOST_PROCESSORS, allowed_processors, run_on};
pub(crate) use random::{random_id, random_seed};
#[cfg(feature = "sandbox")]
pub(crate) use resident::keep_status;
pub(crate) use resident::{cpu_time, memory_counts_from_here, peak_rss, rss};
pub(crate) use stack::stack_below;
