//! What a worker has open of the program's, by no wish of its own: a forked one what was open when
//! its fork server started, and another one what its parent lets programs inherit.
#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

#[cfg(feature = "sandbox")]
use crate::broadcast;
use crate::sys::fd::RawFd;

static INHERITED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Notes what this process has open of the program's: all that it has open now, but the standard
/// streams and what `is_own` says is the backend's or the worker's. A worker that enters a sandbox
/// closes it, before its initializer runs; another one keeps it.
///
/// To be called by a backend, in the worker process or in what it is forked from, before anything
/// is opened there.
pub fn inherit(is_own: impl Fn(RawFd) -> bool) {
    let mut descriptors = open_descriptors();
    descriptors.retain(|it| !is_own(*it));
    *INHERITED.lock().unwrap_or_else(PoisonError::into_inner) = descriptors;
}

/// The descriptors that this process has open, but the standard streams; none if the system does
/// not say.
fn open_descriptors() -> Vec<RawFd> {
    let Ok(folder) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let names = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One of them was the folder's.
    let is_open = |number: &RawFd| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok();
    let numbers: Vec<RawFd> = names.collect();
    numbers
        .into_iter()
        .filter(|it| *it > 2 && is_open(it))
        .collect()
}

/// Closes what is the program's, but for shared memory, which the worker may have to look into.
#[cfg(feature = "sandbox")]
pub(super) fn close() {
    let inherited = std::mem::take(&mut *INHERITED.lock().unwrap_or_else(PoisonError::into_inner));
    let shared = broadcast::descriptors();
    for number in inherited.into_iter().filter(|it| !shared.contains(it)) {
        // SAFETY: it is open since before this process was a worker, so nothing of the worker's is
        // behind it; and what the program has for it in its memory is a copy, of which whoever asks
        // for a sandbox is told that its tasks find it closed.
        unsafe { rustix::io::close(number) };
    }
}
