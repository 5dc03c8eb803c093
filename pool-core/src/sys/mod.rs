//! The operating system, chosen once. Everything above this module is portable.

#[cfg(target_os = "linux")]
#[cfg_attr(
    any(loom, shuttle),
    allow(dead_code, reason = "the model has its own of what waits")
)]
mod linux;
#[cfg(any(loom, shuttle))]
mod model;
mod sealed;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
pub(crate) use sealed::{Place, Sealed};
// In front of Linux's of the same names.
#[cfg(shuttle)]
pub(crate) use model::{Clock, park_timeout, processors, something_happened};
#[cfg(any(loom, shuttle))]
pub(crate) use model::{
    Event, Poller, accept_barriers, barrier_everywhere, futex_wait, futex_wake, has_barriers, now,
    now_ns, private_memory, ring_bell, share, silence_bell, unmap,
};
#[cfg(loom)]
pub(crate) use model::{Processor, interruption};

#[cfg(not(target_os = "linux"))]
compile_error!("procpool runs on Linux so far: a port starts with a module beside `sys/linux.rs`");
