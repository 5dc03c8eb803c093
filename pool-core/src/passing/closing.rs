//! Closing what came from a worker and that nobody has taken.
//!
//! To close a file may take as long as somebody likes: that of a file system whose server is a
//! worker's, or of a socket that is to linger. So a thread of its own does it, which is there as
//! long as there is something to close.

use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use crate::process::fork;
use crate::sys::fd::OwnedFd;

/// What is to be closed.
struct Queue {
    files: Vec<OwnedFd>,
    /// In which process there is a thread that closes it: see `fork::depth`.
    served_in: Option<usize>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    files: Vec::new(),
    served_in: None,
});

/// Closes these some time soon. Never waits for that.
pub(crate) fn close_elsewhere(files: impl IntoIterator<Item = OwnedFd>) {
    let mut files = files.into_iter().peekable();
    if files.peek().is_none() {
        return;
    }
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    queue.files.extend(files);
    let here = fork::depth();
    if queue.served_in == Some(here) {
        return;
    }
    queue.served_in = Some(here);
    drop(queue);
    let closer = Builder::new().name("procpool-close".into());
    if closer.spawn(close_all).is_err() {
        // There is no other thread to be had.
        close_all();
    }
}

fn close_all() {
    loop {
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.files.is_empty() {
            queue.served_in = None;
            return;
        }
        let files = std::mem::take(&mut queue.files);
        drop(queue);
        drop(files);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;

    #[test]
    fn all_is_closed() {
        for count in [0, 1, 3, 30] {
            let pipes = (0..count).map(|_| io::pipe().expect("descriptors"));
            let (read, write): (Vec<_>, Vec<_>) = pipes.unzip();
            close_elsewhere(write.into_iter().map(OwnedFd::from));
            for mut pipe in read {
                assert_eq!(pipe.read(&mut [0]).expect("a pipe"), 0);
            }
        }
    }
}
