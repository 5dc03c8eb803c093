//! Tasks that run in a thread of their own, and are asked to stop.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks tasks to stop that run in another thread of this process, by
/// [`EncodedChunk::run`](crate::EncodedChunk::run): no more of them begin, and
/// [`worker::is_cancelled`](crate::worker::is_cancelled) says `true` to the one that runs, on its
/// own thread. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// One that nobody has set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for it, for good.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// The flags of what runs on this thread, the innermost last.
    static HERE: RefCell<Vec<CancelFlag>> = const { RefCell::new(Vec::new()) };
}

/// Runs tasks on this thread that this flag asks to stop.
pub(crate) fn with_flag<T>(flag: &CancelFlag, body: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            HERE.with_borrow_mut(|all| all.pop());
        }
    }
    HERE.with_borrow_mut(|all| all.push(flag.clone()));
    let _leave = Leave;
    body()
}

/// Whether the task on this thread is asked to stop. `None`: none runs under a flag.
pub(super) fn is_set_here() -> Option<bool> {
    HERE.with_borrow(|all| all.last().map(CancelFlag::is_set))
}
