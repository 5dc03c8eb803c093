//! What runs in each worker that was forked, before its initializer. It is there already: a worker
//! is a copy of a process that has it.

use std::sync::{Arc, Mutex, PoisonError};

/// What a builder's [`after_fork`](crate::PoolBuilder::after_fork) was given.
pub type ForkHook = Box<dyn Fn() + Send + Sync>;

static HOOKS: Mutex<Option<Arc<Vec<ForkHook>>>> = Mutex::new(None);

/// From now on this process has these, and so have its copies. To be called by a backend, in the
/// process that forks workers. It replaces what was inherited.
pub fn keep_fork_hooks(hooks: Vec<ForkHook>) {
    let hooks = (!hooks.is_empty()).then(|| Arc::new(hooks));
    *HOOKS.lock().unwrap_or_else(PoisonError::into_inner) = hooks;
}

/// Runs them in their order. The lock is free meanwhile, for one may start a fork server.
pub(super) fn run() {
    let hooks = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for hook in hooks.iter().flat_map(|hooks| hooks.iter()) {
        hook();
    }
}
