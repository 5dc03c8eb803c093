//! What a worker has open of the program's, by no wish of its own: a forked one what was open when
//! its fork server started, and another one what its parent lets programs inherit.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "sandbox")]
use crate::broadcast;

static INHERITED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Says what this process has of the program's. To be called by a backend, in the worker process or
/// in what it is forked from. A worker that enters a sandbox closes it, before its initializer
/// runs; another one keeps it.
///
/// # Safety
/// Until the worker serves, nothing in this process closes one of these descriptors, or uses them
/// but for tasks.
pub unsafe fn inherit(mut descriptors: Vec<RawFd>) {
    descriptors.retain(|it| *it > 2);
    *INHERITED.lock().unwrap_or_else(PoisonError::into_inner) = descriptors;
}

/// The descriptors that this process has open, but the standard streams; none if the system does
/// not say.
#[must_use]
pub fn open_descriptors() -> Vec<RawFd> {
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
        // SAFETY: it is open since before this process was a worker, as the backend has promised,
        // and nobody uses it but tasks, of which none has run. Whoever asks for a sandbox is told
        // that they find it closed.
        unsafe { rustix::io::close(number) };
    }
}
