//! What a forked process does before it leaves.
#![allow(unsafe_code)]

use std::io::Write;

use nix::libc;

/// Writes out what Rust's standard output and the C library's streams have buffered. Called before
/// a fork, so that the copy does not write it a second time, and before
/// [`leave`](super::leave), which would lose it.
pub(crate) fn flush_streams() {
    // An error could go nowhere: the output was refused, as it would be at exit.
    let _ = std::io::stdout().flush();
    // SAFETY: a null pointer stands for all streams; their locks are taken by the C library.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}
