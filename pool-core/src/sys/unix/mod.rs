//! What each Unix has, Linux as well.

mod clock;
mod connection;
mod descriptor;
mod file_size;
mod files;
mod ids;
mod limits;
mod mapping;
mod packets;
mod poll;
mod process;
mod sealed;
mod signals;
mod socket;
mod streams;
mod threads;

pub(crate) use clock::{CpuClock, cpu_ns, now, now_ns};
pub(crate) use connection::{
    connected_pair, hang_up, is_hung_up, leave_with_other_end, take_what_was_left,
};
pub use descriptor::off_standard;
pub(crate) use file_size::without_size_signal;
pub(crate) use files::inode;
pub use ids::{own_pid, starter};
pub(crate) use limits::{Limit, be_nicer, set_limit};
pub(crate) use mapping::{Mapping, has_room_for};
pub(crate) use packets::{
    MAX_PASSED, has_packets, is_congested, packet_pair, receive_packet, send_packet,
    wait_for_packet,
};
pub use poll::poll;
#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(in crate::sys) use poll::{Poll, count, round_up, unless_refused};
pub(crate) use process::has_ended;
pub use process::leave;
pub(crate) use sealed::{NotSealed, Place, Sealed};
pub(crate) use signals::{Signal, send_signal, signal_name};
pub use signals::{ignore_signals_of_files, reset_signals};
#[cfg(any(procpool_portable, not(target_os = "linux")))]
pub(in crate::sys) use socket::SENDING;
pub(crate) use streams::{Standard, null_output, output_pipe, read, write_past_locks};
#[cfg(feature = "tracing")]
pub(crate) use streams::{never_block, write};
pub(crate) use threads::thread_name;
