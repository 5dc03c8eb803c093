//! The operating system, chosen once. Everything above this module is portable.
//!
//! `unix` is what all have; beside it is what Linux alone has, or what stands in for that
//! elsewhere, and, by `--cfg procpool_portable`, on Linux.

#[cfg(all(target_os = "linux", not(procpool_portable)))]
mod linux;
#[cfg(any(procpool_portable, not(target_os = "linux")))]
mod portable;
mod unix;

#[cfg(all(target_os = "linux", not(procpool_portable)))]
pub(crate) use linux::*;
#[cfg(any(procpool_portable, not(target_os = "linux")))]
pub(crate) use portable::*;
pub(crate) use unix::*;
