//! What the threads of a model share in place of a kernel.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard, for_each_run};

/// What can be waited for.
#[derive(Default)]
pub(super) struct World {
    /// Held for each system call.
    pub(super) kernel: Mutex<()>,
    /// Something may have become readable, or time has passed.
    pub(super) changed: Condvar,
}

for_each_run! {
    pub(super) static ref WORLD: World = World::default();
}

pub(super) fn kernel() -> MutexGuard<'static, ()> {
    #[cfg(shuttle)]
    crate::sync::live_or_die();
    WORLD.kernel.lock().unwrap_or_else(PoisonError::into_inner)
}
