//! Linux: each part of the system in a file of its own.

mod barrier;
mod bell;
mod clock;
mod code;
mod descriptor;
mod epoll;
mod event;
mod fork_marks;
mod futex;
mod memory;
mod process;
mod random;
mod resident;

pub(crate) use barrier::{
    accept_barriers, accept_own_barriers, barrier_everywhere, barrier_here, has_barriers,
    has_own_barriers,
};
pub(crate) use bell::{inode, ring_bell};
pub(crate) use clock::{CpuClock, cpu_ns, now, now_ns};
pub(crate) use code::{Image, OtherImage, other_image_of, other_image_with, own_image};
pub use descriptor::off_standard;
pub(crate) use epoll::Poller;
pub(crate) use event::Event;
pub(crate) use fork_marks::fork_marks;
pub(crate) use futex::{futex_wait, futex_wake, nap, sleep_until, tell_of_change, wait_for_change};
pub(crate) use memory::{Mapping, expect_use, has_room_for, memory_file};
pub(in crate::sys) use memory::{give_size, has_size, memory_file_to_size};
pub(crate) use process::{THREAD_CALL, has_ended, in_proc, is_leaving};
pub use process::{change_environment, leave};
pub(crate) use random::{random_id, random_seed};
#[cfg(feature = "sandbox")]
pub(crate) use resident::keep_status;
pub(crate) use resident::{cpu_time, memory_counts_from_here, peak_rss, rss};
