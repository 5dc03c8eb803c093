//! The operating system, chosen once. Everything above this module is portable.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(not(target_os = "linux"))]
compile_error!("procpool runs on Linux so far: a port starts with a module beside `sys/linux.rs`");
