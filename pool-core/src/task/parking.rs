//! Waiting for a call where somebody else does the work.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use crate::sync::thread::{self, Thread};
use crate::sys;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until `poll` answers `true` or the deadline is over, and says which.
pub(crate) fn park_until(
    poll: &mut dyn FnMut(Option<&Waker>) -> bool,
    deadline: Option<Instant>,
) -> bool {
    if poll(None) {
        return true;
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while !poll(Some(&waker)) {
        match deadline.map(|deadline| deadline.saturating_duration_since(sys::now())) {
            None => thread::park(),
            Some(left) if left.is_zero() => return false,
            Some(left) => thread::park_timeout(left),
        }
    }
    true
}
