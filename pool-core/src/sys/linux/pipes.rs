//! How much a pipe holds.

use std::os::fd::AsFd;

use rustix::pipe::fcntl_getpipe_size;

/// How many bytes a pipe holds, if the system says so.
pub(crate) fn pipe_size(pipe: impl AsFd) -> Option<usize> {
    fcntl_getpipe_size(pipe).ok()
}

/// Lets a pipe hold more, if the system allows it.
#[cfg(feature = "tracing")]
pub(crate) fn enlarge_pipe(pipe: impl AsFd, bytes: usize) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, bytes);
}
