//! The operating system, chosen once. Everything above this module is portable.

#[cfg(target_os = "linux")]
mod bonds;
mod file_size;
mod image;
#[cfg(target_os = "linux")]
#[cfg_attr(
    any(loom, shuttle),
    allow(
        dead_code,
        unused_imports,
        reason = "the model has its own of what waits"
    )
)]
mod linux;
#[cfg(any(loom, shuttle))]
mod model;
mod object;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod objects;
#[cfg(target_os = "linux")]
mod packets;
mod refused;
mod sealed;
mod signals;
mod waiting;

#[cfg(target_os = "linux")]
pub(crate) use bonds::own_tid;
pub use bonds::{be_signalled_by, own_pid, starter, tie_process};
#[cfg(target_os = "linux")]
pub(crate) use bonds::{
    connected_pair, die_with_starter, hang_up, is_dumpable, is_hung_up, leave_with_other_end,
    raise_oom_score, set_dumpable, take_what_was_left,
};
pub(crate) use file_size::without_size_signal;
pub(crate) use image::{Hash, build_content, build_identity, identity_of};
#[cfg(target_os = "linux")]
pub use linux::off_standard;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "linux")]
pub use linux::{change_environment, leave};
pub use object::{interpreter, is_in_program};
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use objects::{Table, loaded_objects};
#[cfg(target_os = "linux")]
pub(crate) use packets::{
    MAX_PASSED, has_packets, is_congested, packet_pair, receive_packet, send_packet,
    wait_for_packet,
};
pub use refused::failed;
pub(crate) use refused::{FailedCall, errno_of, failed_in};
pub(crate) use sealed::{NotSealed, Place, Sealed};
pub use signals::ignore_signals_of_files;
pub use signals::reset_signals;
pub use waiting::poll;
// In front of Linux's of the same names.
#[cfg(shuttle)]
pub(crate) use model::{Clock, park_timeout, processors, something_happened};
#[cfg(any(loom, shuttle))]
pub(crate) use model::{
    Event, Mapping, Poller, accept_barriers, accept_own_barriers, barrier_everywhere,
    barrier_everywhere as barrier_here, futex_wait, futex_wake, has_barriers,
    has_barriers as has_own_barriers, now, now_ns, ring_bell,
};
#[cfg(loom)]
pub(crate) use model::{Processor, interruption};

#[cfg(not(target_os = "linux"))]
compile_error!("procpool runs on Linux so far: a port starts with a module beside `sys/linux.rs`");
