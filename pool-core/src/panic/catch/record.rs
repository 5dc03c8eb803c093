//! What a worker that may end by a panic leaves to its parent: see
//! [`LastPanicSlot`].

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::panic::report::PanicReport;
use crate::sys::thread_name;

/// Where a worker leaves what its parent finds when the process is gone.
pub(crate) trait LastPanicSlot: Sync {
    /// The number of the item that runs; 0: none, or this process is no worker.
    fn item(&self) -> u64;
    /// Writes down the panic under which this item may end the process.
    fn write(&self, item: u64, panic: &PanicReport);
    /// The panic was caught.
    fn clear(&self);
}

static LAST_PANIC: OnceLock<&'static dyn LastPanicSlot> = OnceLock::new();

/// The thread that runs tasks.
static TASKS_THREAD: AtomicUsize = AtomicUsize::new(0);

/// From now on panics are left there. The first one counts; a process has one such place. This is
/// the thread that runs tasks.
pub(crate) fn leave_to(place: &'static dyn LastPanicSlot) {
    TASKS_THREAD.store(this_thread(), Ordering::Relaxed);
    let _ = LAST_PANIC.set(place);
}

/// The thread whose panic was left last; 0: none is left.
static WRITER: AtomicUsize = AtomicUsize::new(0);
/// The item under which a panic ends the process. What comes after that panic says only that it
/// does ("panic in a function that cannot unwind").
static ENDING: AtomicU64 = AtomicU64::new(0);
/// Threads may panic side by side. The second one leaves nothing.
static WRITING: Mutex<()> = Mutex::new(());

/// Leaves the panics that are on their way in this thread, the outermost first, and the one that
/// ends the process, if one does. The first of them is the cause.
pub(super) fn leave<'a>(
    coming: impl IntoIterator<Item = &'a PanicReport>,
    last: Option<&'a PanicReport>,
) {
    let Some(place) = LAST_PANIC.get() else {
        return;
    };
    let item = place.item();
    let Ok(_alone) = WRITING.try_lock() else {
        return;
    };
    if item == 0 || ENDING.load(Ordering::Relaxed) == item {
        return;
    }
    let mut reports = coming.into_iter().chain(last);
    let Some(first) = reports.next() else {
        return;
    };
    let mut panic = PanicReport {
        message: first.message.clone(),
        location: first.location.clone(),
        backtrace: None,
        thread: (this_thread() != TASKS_THREAD.load(Ordering::Relaxed)).then(thread_name),
    };
    let message = &mut panic.message;
    for then in reports {
        // Writing into a text does not fail.
        let _ = write!(message, "; then, while unwinding: {}", then.message);
        if let Some(location) = &then.location {
            let _ = write!(message, " (at {location})");
        }
    }
    place.write(item, &panic);
    WRITER.store(this_thread(), Ordering::Relaxed);
    if last.is_some() {
        ENDING.store(item, Ordering::Relaxed);
    }
}

/// A panic of this thread was caught, and these are still on their way.
pub(super) fn withdraw<'a>(coming: impl IntoIterator<Item = &'a PanicReport>) {
    if WRITER.load(Ordering::Relaxed) != this_thread() {
        return;
    }
    WRITER.store(0, Ordering::Relaxed);
    ENDING.store(0, Ordering::Relaxed);
    if let Some(place) = LAST_PANIC.get() {
        place.clear();
    }
    leave(coming, None);
}

/// A number that no other living thread has; not 0 as long as the thread has its data.
fn this_thread() -> usize {
    thread_local! {
        static HERE: u8 = const { 0 };
    }
    HERE.try_with(|here| std::ptr::from_ref(here).addr())
        .unwrap_or(usize::MAX)
}
