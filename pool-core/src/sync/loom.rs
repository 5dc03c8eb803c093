//! loom's: it tries all schedules of a small model, and all values that a load may see.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use ::loom::cell::UnsafeCell;
pub(crate) use ::loom::lazy_static as for_each_run;
pub(crate) use ::loom::sync::{Condvar, Mutex, MutexGuard};

/// loom's macro does not know of constant initial values.
macro_rules! local {
    ($(#[$about:meta])* static $name:ident: $type:ty = const $init:block;) => {
        ::loom::thread_local! { $(#[$about])* static $name: $type = $init; }
    };
}
pub(crate) use local as thread_local;

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    pub(crate) use std::sync::atomic::compiler_fence;

    use crate::sys::interruption;

    macro_rules! interruptible {
        ($name:ident, $number:ty) => {
            /// An atomic before whose use another process's barrier may reach this thread.
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "not all are used of both sizes")]
            impl $name {
                pub(crate) fn new(value: $number) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $number {
                    interruption();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $number, order: Ordering) {
                    interruption();
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                    interruption();
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    interruption();
                    self.0.fetch_add(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    interruption();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    interruptible!(AtomicU32, u32);
    interruptible!(AtomicU64, u64);
}

pub(crate) mod thread {
    use std::io;
    use std::num::NonZero;
    use std::time::Duration;

    pub(crate) use loom::thread::{
        Builder, JoinHandle, Thread, ThreadId, current, park, yield_now as spin_loop,
    };

    /// Time does not pass.
    pub(crate) fn park_timeout(_: Duration) {
        park();
    }

    pub(crate) fn available_parallelism() -> io::Result<NonZero<usize>> {
        Ok(NonZero::<usize>::MIN)
    }
}

/// The watched bytes by their addresses. (Its lock is none of the model's: nothing happens under
/// it.)
type Cells = std::sync::Mutex<HashMap<usize, Arc<UnsafeCell<()>>>>;

for_each_run! {
    static ref CELLS: Cells = Cells::default();
}

/// Has reads and writes of this memory checked for races.
pub(crate) fn watch(block: NonNull<u8>, count: usize) {
    let mut cells = CELLS.lock().expect("nobody panics with it");
    for at in 0..count {
        let cell = Arc::new(UnsafeCell::new(()));
        cells.insert(block.as_ptr() as usize + at, cell);
    }
}

fn cell(block: NonNull<u8>, offset: usize) -> Option<Arc<UnsafeCell<()>>> {
    let cells = CELLS.lock().expect("nobody panics with it");
    cells.get(&(block.as_ptr() as usize + offset)).cloned()
}

pub(crate) fn reads(block: NonNull<u8>, count: usize, offset: impl Fn(u64) -> usize) {
    for at in 0..count as u64 {
        if let Some(cell) = cell(block, offset(at)) {
            cell.with(|_| ());
        }
    }
}

pub(crate) fn writes(block: NonNull<u8>, count: usize, offset: impl Fn(u64) -> usize) {
    for at in 0..count as u64 {
        if let Some(cell) = cell(block, offset(at)) {
            cell.with_mut(|_| ());
        }
    }
}
