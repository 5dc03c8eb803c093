//! Where there is no Unix: no pool of processes can be built, and so nothing here starts, shares or
//! waits for one. A `SerialPool` has clocks, memory, and the place of the program.

mod clock;
mod connections;
pub mod fd;
mod image;
mod limits;
mod memory;
mod missing;
mod process;
mod sleep;
mod streams;

pub(crate) use clock::{CpuClock, cpu_ns, now, now_ns};
pub use connections::off_standard;
pub(crate) use connections::{
    Event, MAX_PASSED, Poller, connected_pair, hang_up, has_packets, inode, is_congested,
    is_hung_up, leave_with_other_end, packet_pair, receive_packet, ring_bell, send_packet,
    take_what_was_left, wait_for_packet,
};
pub(crate) use image::{
    build_content, build_identity, other_image_of, other_image_with, own_image,
};
pub use image::{interpreter, is_in_program};
pub(crate) use limits::{Limit, Signal, be_nicer, send_signal, set_limit, signal_name};
pub(crate) use memory::{Mapping, NotSealed, Place, Sealed, memory_file, memory_size};
pub(crate) use process::{
    MOST_PROCESSORS, THREAD_CALL, accept_barriers, accept_own_barriers, allowed_processors,
    barrier_everywhere, barrier_here, cpu_time, die_with_starter, expect_use, fork_marks,
    has_barriers, has_ended, has_own_barriers, in_proc, is_dumpable, is_leaving,
    memory_counts_from_here, peak_rss, pipe_size, raise_oom_score, random_id, random_seed, rss,
    run_on, set_dumpable, thread_name, without_size_signal,
};
pub use process::{
    be_signalled_by, change_environment, ignore_signals_of_files, leave, own_pid, reset_signals,
    starter, tie_process,
};
pub(crate) use sleep::{
    WAKES_BY_DESCRIPTOR, nap, sleep_until, sleep_while, wait_for_change, wake_sleeper, wakeup,
};
pub(crate) use streams::{Standard, null_output, output_pipe, read, write_past_locks};
#[cfg(feature = "tracing")]
pub(crate) use streams::{enlarge_pipe, never_block, write};
