//! The operating system, chosen once. Everything above this module is portable.
//!
//! `unix` is what all have; beside it is what Linux alone has, or what stands in for that
//! elsewhere, and, by `--cfg procpool_portable`, on Linux. `elf` and `mach_o` say where the loader
//! has put the program. `elsewhere` is all that there is without a Unix.

#[cfg(all(unix, not(target_vendor = "apple")))]
mod elf;
#[cfg(not(unix))]
mod elsewhere;
mod errno;
mod hash;
#[cfg(all(target_os = "linux", not(procpool_portable)))]
#[cfg_attr(
    any(loom, shuttle),
    allow(
        dead_code,
        unused_imports,
        reason = "the model has its own of what waits"
    )
)]
mod linux;
mod loaded;
#[cfg(target_vendor = "apple")]
mod mach_o;
#[cfg(any(loom, shuttle))]
mod model;
#[cfg(all(unix, any(procpool_portable, not(target_os = "linux"))))]
mod portable;
mod refused;
#[cfg(unix)]
#[cfg_attr(
    any(loom, shuttle),
    allow(
        dead_code,
        unused_imports,
        reason = "the model has its own of what waits"
    )
)]
mod unix;

#[cfg(all(unix, not(target_vendor = "apple")))]
pub(crate) use elf::*;
#[cfg(all(unix, not(target_vendor = "apple")))]
pub use elf::{interpreter, is_in_program};
#[cfg(not(unix))]
pub use elsewhere::fd;
#[cfg(not(unix))]
pub(crate) use elsewhere::*;
#[cfg(not(unix))]
pub use elsewhere::{
    be_signalled_by, change_environment, ignore_signals_of_files, interpreter, is_in_program,
    leave, off_standard, own_pid, reset_signals, starter, tie_process,
};
pub(crate) use errno::Errno;
pub(crate) use hash::Hash;
#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(crate) use linux::*;
#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub use linux::{be_signalled_by, change_environment, tie_process};
pub(crate) use loaded::{Image, OtherImage};
#[cfg(target_vendor = "apple")]
pub(crate) use mach_o::*;
#[cfg(target_vendor = "apple")]
pub use mach_o::{interpreter, is_in_program};
#[cfg(all(unix, any(procpool_portable, not(target_os = "linux"))))]
pub(crate) use portable::*;
#[cfg(all(unix, any(procpool_portable, not(target_os = "linux"))))]
pub use portable::{be_signalled_by, change_environment, tie_process};
pub(crate) use refused::{FailedCall, errno_of};
pub use refused::{failed, failed_in};
#[cfg(unix)]
pub(crate) use std::os::fd;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(unix)]
pub use unix::{
    ignore_signals_of_files, leave, off_standard, own_pid, poll, reset_signals, starter,
};
// In front of Linux's of the same names.
#[cfg(shuttle)]
pub(crate) use model::{Clock, park_timeout, processors, something_happened};
#[cfg(any(loom, shuttle))]
pub(crate) use model::{
    Event, Mapping, Poller, accept_barriers, accept_own_barriers, barrier_everywhere,
    barrier_everywhere as barrier_here, has_barriers, has_barriers as has_own_barriers, now,
    now_ns, ring_bell, sleep_while, wake_sleeper,
};
#[cfg(loom)]
pub(crate) use model::{Processor, interruption};
