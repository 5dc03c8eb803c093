//! Who is notified when shared memory is freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::sys::Event;

/// A pool whose workers may have mapped memory of this process.
pub(crate) struct Listener {
    alarm: Arc<Event>,
    /// Memory was freed since the pool has asked.
    is_due: AtomicBool,
    fork_depth: usize,
}

static LISTENERS: Mutex<Vec<Weak<Listener>>> = Mutex::new(Vec::new());

impl Listener {
    /// From now on, `alarm` is set when memory is freed, until the listener is dropped.
    pub(crate) fn new(alarm: Arc<Event>) -> Arc<Self> {
        let listener = Arc::new(Self {
            alarm,
            is_due: AtomicBool::new(false),
            fork_depth: crate::process::fork::depth(),
        });
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        listener
    }

    /// Whether memory was freed since the last time.
    pub(crate) fn take(&self) -> bool {
        self.is_due.swap(false, Ordering::AcqRel)
    }
}

/// Memory was freed.
pub(super) fn tell() {
    // A forked process has copies of its parent's pools, whose alarms are not its own.
    let depth = crate::process::fork::depth();
    let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    for listener in listeners.iter().filter_map(Weak::upgrade) {
        if listener.fork_depth == depth && !listener.is_due.swap(true, Ordering::AcqRel) {
            listener.alarm.set();
        }
    }
}
