//! What a worker that may end by a panic leaves to its parent: see
//! [`LastPanic`](crate::panic::last_panic::LastPanic).

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Coming, INSIDE};
use crate::shm::protocol::PanicReport;

/// The thread whose panic was left last; 0: none is left.
static WRITER: AtomicUsize = AtomicUsize::new(0);
/// The item under which a panic ends the process. What comes after that panic tells only that it
/// does ("panic in a function that cannot unwind").
static ENDING: AtomicU64 = AtomicU64::new(0);
/// Threads may panic side by side. The second one leaves nothing.
static WRITING: Mutex<()> = Mutex::new(());

/// Leaves the panics that are on their way in this thread, the outermost first, and the one that
/// ends the process, if one does. The first of them is the cause.
pub(super) fn leave(coming: &[Coming], last: Option<&PanicReport>) {
    crate::worker::current::with_region(|region| {
        let item = region.items_begun();
        let Ok(_alone) = WRITING.try_lock() else {
            return;
        };
        if item == 0 || ENDING.load(Ordering::Relaxed) == item {
            return;
        }
        let mut reports = coming.iter().map(|it| &it.report).chain(last);
        let Some(first) = reports.next() else {
            return;
        };
        let mut message = first.message.clone();
        for then in reports {
            // Writing into a text does not fail.
            let _ = write!(message, "; then, while unwinding: {}", then.message);
            if let Some(location) = &then.location {
                let _ = write!(message, " (at {location})");
            }
        }
        let location = first.location.as_deref().unwrap_or_default();
        region.words().last_panic.write(item, location, &message);
        WRITER.store(this_thread(), Ordering::Relaxed);
        if last.is_some() {
            ENDING.store(item, Ordering::Relaxed);
        }
    });
}

/// A panic of this thread was caught, and these are still on their way.
pub(super) fn withdraw(coming: &[Coming]) {
    if WRITER.load(Ordering::Relaxed) != this_thread() {
        return;
    }
    WRITER.store(0, Ordering::Relaxed);
    ENDING.store(0, Ordering::Relaxed);
    crate::worker::current::with_region(|region| region.words().last_panic.clear());
    leave(coming, None);
}

/// A number that no other living thread has; not 0 as long as the thread has its data.
fn this_thread() -> usize {
    INSIDE
        .try_with(|inside| std::ptr::from_ref(inside).addr())
        .unwrap_or(usize::MAX)
}
